"""Servers in the test's process, one after the other, that keep their agents."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from descartes_fast import AgentConfig, AgentInfo, ZmqClient, connect
from descartes_fast.testing import descartes_server

__all__ = ["serving", "spawn", "state"]


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dfast-") as folder:
        yield Path(folder) / "state"


@asynccontextmanager
async def serving(state: Path, **settings: Any) -> AsyncIterator[ZmqClient]:
    """Run a server on a state directory; yield a client of it."""
    usual: dict[str, Any] = {"journal": True, "keep_agents": True, "state_dir": str(state)}
    async with descartes_server(**usual | settings) as server, connect(server.endpoint) as client:
        yield client


async def spawn(client: ZmqClient, task: str) -> AgentInfo:
    return await client.spawn_remote(AgentConfig(model_backend="sh", task=task))
