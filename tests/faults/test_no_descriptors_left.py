"""File descriptors run out: spawns are refused in words, and those who are connected are served."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from descartes_fast import (
    AgentConfig,
    AgentError,
    AgentInfo,
    AgentStatus,
    CommunicationError,
    ServerBusy,
    SpawnFailed,
    ZmqClient,
    connect,
)
from faults.server_process import ServerProcess, server_process

LIMIT = 64
RESERVE = 16


@contextlib.contextmanager
def limited_server(reserve: int, *, tcp: bool = True) -> Iterator[ServerProcess]:
    """Run a server that may open 64 files, and its keeper too; neither may raise that."""
    wrapper = ("sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh")
    with server_process(*wrapper, settings=f"fd_reserve = {reserve}", tcp=tcp) as server:
        yield server


def script(task: str) -> AgentConfig:
    return AgentConfig(model_backend="sh", task=task)


async def assert_served(client: ZmqClient, agent: AgentInfo) -> None:
    """Check that everything but a spawn works."""
    await client.write_agent_stdin(agent, b"hello\n")
    read = await client.control_agent(
        agent, "read_stdout", {"offset": 0, "wait_secs": 5, "encoding": "text"}
    )
    assert read.data["data"].startswith("hello\n")
    assert (await client.query_agent_output(agent, "stdout")).lines[0] == "hello"
    assert agent.id in [info.id for info in await client.list_remote_agents()]
    await client.pause_agent(agent)
    await client.resume_agent(agent)
    assert await client.get_agent_status(agent) == AgentStatus.RUNNING


async def test_connections_up_to_the_reserve_refuse_spawns_and_harm_nobody() -> None:
    with limited_server(RESERVE) as server:
        async with connect(server.endpoint) as client:
            agent = await client.spawn_remote(script("exec cat"))
            async with contextlib.AsyncExitStack() as crowd:
                with pytest.raises(CommunicationError):
                    await fill(crowd, server.endpoint)
                # The last connection of the crowd took more time than what is known may be old.
                with pytest.raises(ServerBusy, match="descriptors are free, below the reserve"):
                    await client.spawn_remote(script("true"))
                health = await client.health_check()
                assert not health.healthy
                assert "file descriptors" in (health.metadata or {})["reason"]
                await assert_served(client, agent)
            await until_healthy(client)
            ended = await client.spawn_remote(script("exit 3"))
            assert (await client.wait_agent(ended, timeout_secs=10)).exit_code == 3


async def until_healthy(client: ZmqClient) -> None:
    async with asyncio.timeout(5):
        while not (await client.health_check()).healthy:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_agents_up_to_the_keepers_limit_are_refused_and_harm_nobody() -> None:
    with limited_server(0) as server:
        async with connect(server.endpoint) as client:
            agents = [await client.spawn_remote(script("exec cat"))]
            refused: AgentError | None = None
            while refused is None:
                try:
                    agents.append(await client.spawn_remote(script("exec cat")))
                except (SpawnFailed, ServerBusy) as error:
                    refused = error
                assert len(agents) < LIMIT
            assert "files" in str(refused) or "descriptors" in str(refused)
            for agent in agents[:: len(agents) - 1]:
                await assert_served(client, agent)
            assert len(await client.list_remote_agents()) == len(agents)
            await client.kill_agent(agents[0])
            await client.wait_agent(agents[0], timeout_secs=10)
            ended = await client.spawn_remote(script("exit 3"))
            assert (await client.wait_agent(ended, timeout_secs=10)).exit_code == 3
            assert await client.get_agent_status(agents[-1]) == AgentStatus.RUNNING


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
async def test_connections_beyond_the_limit_are_turned_away_and_those_there_are_served(
    scheme: str,
) -> None:
    with limited_server(0, tcp=scheme == "tcp") as server:
        async with connect(server.endpoint) as client:
            agent = await client.spawn_remote(script("exec cat"))
            async with (
                await client.subscribe_status_updates(),  # a connection of its own
                contextlib.AsyncExitStack() as crowd,
            ):
                with pytest.raises(CommunicationError):
                    await fill(crowd, server.endpoint)
                assert server.process.poll() is None
                assert LIMIT - 16 < open_files(server.process.pid) < LIMIT
                await assert_served(client, agent)
                ended = await client.spawn_remote(script("exit 3"))
                assert (await client.wait_agent(ended, timeout_secs=10)).exit_code == 3
            async with connect(server.endpoint, connection_timeout_secs=10) as later:
                assert agent.id in [info.id for info in await later.list_remote_agents()]


async def fill(crowd: contextlib.AsyncExitStack, endpoint: str) -> None:
    for _ in range(LIMIT):
        await crowd.enter_async_context(connect(endpoint, connection_timeout_secs=2.0))


def open_files(pid: int) -> int:
    return len(os.listdir(Path("/proc") / str(pid) / "fd"))
