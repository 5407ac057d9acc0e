"""One agent floods its output: the disk stays within its limits and nobody else waits."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import AgentConfig, AgentInfo, ZmqClient, connect
from faults.keeper_process import keeper_pid
from faults.processes import frozen

if TYPE_CHECKING:
    from conftest import StartServer
    from descartes_fast.server import ZmqAgentServer

MIB = 1024 * 1024
SIBLINGS_SECS = 0.010
ROUNDS_SECS = 30


def disk_bytes(server: ZmqAgentServer) -> int:
    """Return what the agents' output occupies on the disk, holes not counted."""
    total = 0
    for path in Path(str(server.config.state_dir)).rglob("std*"):
        total += path.stat().st_blocks * 512
    return total


async def p99_secs(client: ZmqClient, agent: AgentInfo) -> float:
    """Return what 99 of 100 commands to an agent take at most."""
    took = []
    for _ in range(300):
        began = time.perf_counter()
        await client.get_agent_status(agent)
        took.append(time.perf_counter() - began)
    return statistics.quantiles(took, n=100)[98]


@asynccontextmanager
async def flooded(
    start_server: StartServer, count: int = 1, stderr: bool = False, **settings: Any
) -> AsyncIterator[tuple[ZmqAgentServer, ZmqClient, list[AgentInfo]]]:
    """A server, a client of it, and agents that write without end."""
    server = await start_server(**settings)
    async with connect(server.endpoint) as client:
        task = "yes >&2 & exec yes" if stderr else "exec yes"
        config = AgentConfig(model_backend="sh", task=task)
        yield server, client, [await client.spawn_remote(config) for _ in range(count)]


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0.01)


async def ends(client: ZmqClient, agents: list[AgentInfo]) -> list[int]:
    """Return how much each agent has written so far."""
    responses = [await client.control_agent(agent, "get_status") for agent in agents]
    return [response.data["stdout_bytes"] for response in responses]


@pytest.mark.parametrize("policy", ["trim", "wait"])
@pytest.mark.parametrize("followed", [False, True], ids=["alone", "followed"])
async def test_commands_of_siblings_do_not_wait(
    start_server: StartServer, policy: str, followed: bool
) -> None:
    async with flooded(start_server, output_policy=policy) as (_, client, _):
        sibling = await client.spawn_remote(AgentConfig(model_backend="sh", task="exec cat"))
        async with connect(client.config.endpoint) as other:
            if followed:  # by somebody who never takes what comes
                await other.stream_agent_logs()
            # The machine may be busy with something else: one undisturbed round is the proof.
            rounds = [await p99_secs(client, sibling)]
            until = time.monotonic() + ROUNDS_SECS
            while min(rounds) >= SIBLINGS_SECS and time.monotonic() < until:
                rounds.append(await p99_secs(client, sibling))
    assert min(rounds) < SIBLINGS_SECS


async def test_trimmed_flood_stays_within_the_limit_of_its_streams(
    start_server: StartServer,
) -> None:
    async with flooded(start_server, stderr=True, output_limit_bytes=4 * MIB) as (
        server,
        client,
        agents,
    ):
        peak = 0
        async with asyncio.timeout(30):
            while min(await ends(client, agents)) < 100 * MIB:
                peak = max(peak, disk_bytes(server))
        assert 4 * MIB < peak <= 2 * 4 * MIB + MIB // 4
        read = await client.control_agent(agents[0], "read_stdout", {"offset": 0, "max_bytes": 64})
        assert read.data["offset"] > 90 * MIB


async def test_flood_that_waits_stays_within_the_limit_and_goes_on_when_read(
    start_server: StartServer,
) -> None:
    async with flooded(start_server, stderr=True, output_limit_bytes=MIB, output_policy="wait") as (
        server,
        client,
        agents,
    ):
        await wait_for(lambda: disk_bytes(server) >= 2 * MIB)
        async with asyncio.timeout(20):  # that it grew is told some milliseconds later
            while (end := (await ends(client, agents))[0]) < MIB:
                pass
        assert end == MIB
        read = b""
        while len(read) < 4 * MIB:
            read += await client.read_agent_stdout(agents[0]) or b""
            assert disk_bytes(server) <= 2 * MIB + MIB // 4
        assert read.replace(b"y\n", b"") == b""


async def test_trimmed_floods_together_stay_within_the_limit_of_the_state_directory(
    start_server: StartServer,
) -> None:
    limits = {"output_limit_bytes": 64 * MIB, "state_limit_bytes": 8 * MIB}
    async with flooded(start_server, 4, **limits) as (server, client, agents):
        peak = 0
        async with asyncio.timeout(30):
            while sum(await ends(client, agents)) < 100 * MIB:
                with frozen(keeper_pid()):  # else one may be trimmed between the looks at two
                    peak = max(peak, disk_bytes(server))
        assert 4 * MIB < peak <= 8 * MIB + MIB // 4


async def test_floods_that_wait_stay_together_within_the_limit_of_the_state_directory(
    start_server: StartServer,
) -> None:
    limits = {"output_limit_bytes": 64 * MIB, "state_limit_bytes": 8 * MIB}
    async with flooded(start_server, 4, output_policy="wait", **limits) as (
        server,
        client,
        agents,
    ):
        await wait_for(lambda: disk_bytes(server) == 8 * MIB)
        for _ in range(50):
            assert sum(await ends(client, agents)) <= 8 * MIB
        assert disk_bytes(server) == 8 * MIB
