"""Whoever subscribes to all agents hears how those ended that ended while there was no server."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from descartes_fast import AgentConfig, connect
from faults.restarts import restartable_server

pytestmark = pytest.mark.leaves_orphans


async def test_ends_without_a_server_are_told_with_their_exit_codes() -> None:
    with restartable_server() as server:
        async with connect(server.endpoint) as client:
            updates = await client.subscribe_status_updates()
            agents: dict[UUID, int] = {}
            for code in (0, 3, 7):
                task = f"sleep 0.5; exit {code}"
                config = AgentConfig(name="ends", model_backend="sh", task=task)
                agents[(await client.spawn_remote(config)).id] = code
            server.kill()
            await asyncio.sleep(0.5)  # they end meanwhile
            await asyncio.to_thread(server.start)
            told: dict[UUID, Any] = {}
            async with asyncio.timeout(20), updates:
                async for update in updates:
                    if update.status is not None and update.status.is_terminal:
                        told[update.agent_id] = update.data.get("exit_code")
                    if len(told) == len(agents):
                        break
            assert told == agents
