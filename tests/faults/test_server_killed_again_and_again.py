"""The server is killed and started again, over and over: agents run on, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import statistics
from typing import Any

import pytest

from descartes_fast import AgentConfig, AgentInfo, LogStreamType, ZmqClient, connect
from faults.restarts import restartable_server

CYCLES = int(os.environ.get("TEST_RESTARTS", "10"))
AGENTS = int(os.environ.get("TEST_RESTART_AGENTS", "40"))
RECOVERY_SECS = float(os.environ.get("TEST_RECOVERY_SECS", "1.0"))
LINE_INTERVAL_SECS = AGENTS / 800  # all agents together write at most 800 lines a second
SHORT_LIVED = 4  # agents that end while the server is away, each time
READ_BYTES = 1 << 20

# Writes numbered lines until its stdin says how to end; then tells on stderr how many they were.
WRITER = """\
import os, select
number = 0
while not select.select([0], [], [], {interval_secs})[0]:
    os.write(1, b"line %d\\n" % number)
    number += 1
word, code = os.read(0, 100).split()
os.write(2, b"%s %d" % (word, number))
raise SystemExit(int(code))
"""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.mark.leaves_orphans
@pytest.mark.timeout(60 + 3 * CYCLES + AGENTS)
async def test_agents_keep_their_output_stdin_and_exit_codes_through_restarts() -> None:
    settings = f"max_agents = {AGENTS + 100}\nretain_agents = {AGENTS + SHORT_LIVED * CYCLES}"
    with restartable_server(settings=settings) as server:
        keeper = server.keeper_pid()
        async with connect(server.endpoint, request_timeout_secs=60) as client:
            task = WRITER.format(interval_secs=LINE_INTERVAL_SECS)
            agents = await spawn(client, "py", [task] * AGENTS)
            short_lived: list[AgentInfo] = []
            recoveries = []
            for cycle in range(CYCLES):
                short_lived += await spawn(client, "sh", short_tasks(cycle))
                recoveries.append(await asyncio.to_thread(server.restart))
                assert server.agents() == AGENTS + len(short_lived)
            for number, agent in enumerate(agents):
                await client.write_agent_stdin(agent, b"end %d\n" % (number % 256))
            for number, agent in enumerate(agents):
                await assert_complete(client, agent, number % 256)
            for number, agent in enumerate(short_lived):
                end = await client.wait_agent(agent, timeout_secs=10)
                assert (end.exit_code, end.signal) == (number % 100, None)
                assert await read_all(client, agent, LogStreamType.STDOUT) == b"%d\n" % number
        assert server.keeper_pid() == keeper
        told = f"median {statistics.median(recoveries):.3f} s, longest {max(recoveries):.3f} s"
        print(f"{CYCLES} restarts with {AGENTS} agents: from exec to the first answer {told}")
        assert max(recoveries) < RECOVERY_SECS


def short_tasks(cycle: int) -> list[str]:
    first = SHORT_LIVED * cycle
    numbers = range(first, first + SHORT_LIVED)
    # From before the kill to after the restart.
    return [
        f"sleep 0.{number % SHORT_LIVED}; echo {number}; exit {number % 100}" for number in numbers
    ]


async def spawn(client: ZmqClient, backend: str, tasks: list[str]) -> list[AgentInfo]:
    configs = [AgentConfig(model_backend=backend, task=task) for task in tasks]
    answers = await client.spawn_many(configs, max_in_flight=8)
    agents = [answer for answer in answers if isinstance(answer, AgentInfo)]
    assert len(agents) == len(tasks), answers
    return agents


async def assert_complete(client: ZmqClient, agent: AgentInfo, code: int) -> None:
    """Check an agent's exit code, and that its stdout is every line that it has written, once."""
    end = await client.wait_agent(agent, timeout_secs=20)
    assert (end.exit_code, end.signal) == (code, None)
    word, _, count = (await read_all(client, agent, LogStreamType.STDERR)).partition(b" ")
    assert word == b"end"
    expected = b"".join(b"line %d\n" % number for number in range(int(count)))
    assert await read_all(client, agent, LogStreamType.STDOUT) == expected


async def read_all(client: ZmqClient, agent: AgentInfo, stream: LogStreamType) -> bytes:
    """Return all of an agent's stream, which has ended."""
    found = b""
    async with await client.stream_agent_logs(agent, from_offset=0) as messages:
        async for message in messages:
            if message.stream_type is stream:
                assert message.sequence == len(found)
                found += message.data
    return found
