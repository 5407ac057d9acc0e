"""SIGTERM to a process that is stopped stays pending: a paused agent ends within its grace."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from descartes_fast import AgentConfig, AgentInfo, AgentStatus, ZmqClient, connect

if TYPE_CHECKING:
    from conftest import StartServer

LONG_SECS = 30.0


async def paused(client: ZmqClient, task: str) -> AgentInfo:
    """Start an agent, wait for its first output, and pause it."""
    agent = await client.spawn_remote(AgentConfig(model_backend="sh", task=f"{task}\nread line"))
    async with asyncio.timeout(10):
        while not await client.read_agent_stdout(agent):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await client.pause_agent(agent)
    assert await client.get_agent_status(agent) == AgentStatus.PAUSED
    return agent


async def test_agent_that_dies_of_sigterm_ends_long_before_its_grace(client: ZmqClient) -> None:
    agent = await paused(client, "echo ready")
    began = time.monotonic()
    await client.stop_agent(agent, grace_secs=LONG_SECS)
    ended = await client.wait_agent(agent, timeout_secs=LONG_SECS)
    assert time.monotonic() - began < 5
    assert (ended.status, ended.signal) == (AgentStatus.TERMINATED, 15)


async def test_agent_that_handles_sigterm_says_its_last_words(client: ZmqClient) -> None:
    agent = await paused(client, "trap 'echo bye; exit 7' TERM; echo ready")
    await client.stop_agent(agent, grace_secs=LONG_SECS)
    ended = await client.wait_agent(agent, timeout_secs=5)
    assert (ended.status, ended.exit_code) == (AgentStatus.TERMINATED, 7)
    assert await client.read_agent_stdout(agent) == b"bye\n"


async def test_agent_that_ignores_sigterm_is_killed_after_its_grace(client: ZmqClient) -> None:
    agent = await paused(client, "trap '' TERM; echo ready")
    began = time.monotonic()
    await client.stop_agent(agent, grace_secs=0.5)
    ended = await client.wait_agent(agent, timeout_secs=10)
    assert 0.4 < time.monotonic() - began < 2.5
    assert (ended.status, ended.signal) == (AgentStatus.TERMINATED, 9)


async def test_agent_that_stopped_itself_and_its_children_ends(client: ZmqClient) -> None:
    agent = await paused(client, "sleep 60 & echo ready; kill -STOP $! $$")
    began = time.monotonic()
    await client.stop_agent(agent, grace_secs=LONG_SECS)
    assert (await client.wait_agent(agent, timeout_secs=10)).status == AgentStatus.TERMINATED
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("handler", ["", "trap 'exit 7' TERM;"], ids=["default", "handler"])
async def test_shutdown_ends_paused_agents_before_their_grace(
    start_server: StartServer, handler: str
) -> None:
    server = await start_server(stop_grace_secs=LONG_SECS)
    async with connect(server.endpoint) as client:
        await paused(client, f"{handler} echo ready")
        async with asyncio.timeout(5):
            await server.aclose()
