"""Many agents that end at once: no zombie is left, and no exit code is lost or wrong."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from descartes_fast import AgentConfig, AgentExit, AgentInfo, AgentStatus, ZmqClient, connect
from faults.keeper_process import keeper_pid
from faults.processes import children_of

if TYPE_CHECKING:
    from conftest import StartServer

# 10,000 and more where there is time for it; a minute is for about 20,000 on an idle machine.
COUNT = int(os.environ.get("TEST_SHORT_AGENTS", "400"))
SIGNALS = (1, 2, 9, 15)


def task_of(number: int) -> str:
    """Return a script that ends with an exit code, or a signal, of its own."""
    if number % 10 == 9:
        return f"kill -{SIGNALS[number // 10 % len(SIGNALS)]} $$"
    return f"exit {number % 256}"


def expected_end(number: int) -> tuple[AgentStatus, int | None, int | None]:
    if number % 10 == 9:
        return AgentStatus.FAILED, None, SIGNALS[number // 10 % len(SIGNALS)]
    code = number % 256
    return AgentStatus.FAILED if code else AgentStatus.COMPLETED, code, None


async def ends_of(client: ZmqClient, agents: list[AgentInfo]) -> list[AgentExit]:
    room = asyncio.Semaphore(200)

    async def end_of(agent: AgentInfo) -> AgentExit:
        async with room:
            return await client.wait_agent(agent, timeout_secs=30)

    return list(await asyncio.gather(*(end_of(agent) for agent in agents)))


@pytest.mark.timeout(60 + COUNT // 20)
async def test_short_agents_leave_no_zombie_and_each_its_own_exit_code(
    start_server: StartServer,
) -> None:
    server = await start_server(max_agents=COUNT, retain_agents=COUNT)
    keeper = keeper_pid()
    async with connect(server.endpoint) as client:
        configs = [AgentConfig(model_backend="sh", task=task_of(n)) for n in range(COUNT)]
        agents = await client.spawn_many(configs)
        assert [agent for agent in agents if not isinstance(agent, AgentInfo)] == []
        ends = await ends_of(client, [agent for agent in agents if isinstance(agent, AgentInfo)])
        found = [(end.status, end.exit_code, end.signal) for end in ends]
        assert found == [expected_end(number) for number in range(COUNT)]
        assert children_of(keeper) == {}
        assert "Z" not in children_of(os.getpid()).values()
        assert len(await client.list_remote_agents()) == COUNT
