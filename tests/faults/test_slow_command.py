"""Slow commands beside fast ones: the fast ones do not wait, and there is an end to patience."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import (
    AgentInfo,
    BatchControlCommand,
    ControlCommandType,
    OutputQueryRequest,
    ZmqOutputStream,
)
from raw_peers import Peer, command_of, new_id, peer

if TYPE_CHECKING:
    from conftest import StartServer
    from descartes_fast.server import ZmqAgentServer


async def round_trips(asking: Peer, agent: AgentInfo, count: int) -> list[float]:
    """Return how long each of many quick commands took, in seconds."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await asking.data(agent, "get_status")
        took.append(time.perf_counter() - began)
    return took


async def test_waiting_reads_and_actions_delay_nobody(server: ZmqAgentServer) -> None:
    async def forever(info: AgentInfo, params: Any) -> None:
        await asyncio.sleep(600)

    server.register_action("forever", forever)
    async with peer(server.endpoint) as slow, peer(server.endpoint) as fast:
        agent = await slow.spawn("exec sleep 60")
        for _ in range(200):
            await slow.send(command_of(agent.id, "read_stdout", {"wait_secs": 20}))
            await slow.send(command_of(agent.id, "custom_action", {"action": "forever"}))
        await slow.data(agent, "read_stdout", {"wait_secs": 0})  # by now the others wait
        took = await round_trips(fast, agent, 200)
        assert statistics.median(took) < 0.02
        assert max(took) < 0.5
        # Not even its own client's next command waits.
        assert max(await round_trips(slow, agent, 20)) < 0.5
        await slow.data(agent, "kill")


async def test_action_that_takes_too_long_is_a_timeout(start_server: StartServer) -> None:
    server = await start_server(request_timeout_secs=0.1)

    async def forever(info: AgentInfo, params: Any) -> None:
        await asyncio.sleep(600)

    server.register_action("forever", forever)
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("exec sleep 60", timeout_secs=10)
        response = await asking.control(agent, "custom_action", {"action": "forever"})
        assert (response.error or "").startswith("timeout: ")
        read = await asking.data(agent, "read_stdout", {"wait_secs": 3600})
        assert read["data"] is None


async def test_too_many_requests_in_progress_are_refused_and_quick_ones_answered(
    server: ZmqAgentServer,
) -> None:
    async with peer(server.endpoint) as greedy, peer(server.endpoint) as other:
        agent = await greedy.spawn("exec sleep 60")
        waiting = [
            await greedy.send(command_of(agent.id, "read_stdout", {"offset": 0, "wait_secs": 20}))
            for _ in range(1100)
        ]
        refused = [await greedy.reply(request_id) for request_id in waiting[1024:]]
        assert all(reply.error.startswith("busy: ") for reply in refused)
        assert (await greedy.data(agent, "get_status"))["status"] == "running"
        assert (await other.data(agent, "read_stdout"))["data"] is None
        await other.data(agent, "kill")
        answered = [await greedy.reply(request_id) for request_id in waiting[:1024]]
        assert all(reply.data["eof"] for reply in answered)


async def test_batch_over_agents_that_do_not_end_delays_nobody(server: ZmqAgentServer) -> None:
    async with peer(server.endpoint) as slow, peer(server.endpoint) as fast:
        agents = [await slow.spawn("exec sleep 60") for _ in range(20)]
        batch = BatchControlCommand(
            request_id=new_id(),
            agent_ids=[agent.id for agent in agents] * 100,
            command_type=ControlCommandType.PAUSE,
        )
        await slow.send(batch)
        took = await round_trips(fast, agents[0], 100)
        assert statistics.median(took) < 0.05
        assert (await slow.reply(batch.request_id)).successful == 2000


# What takes a backtracking matcher longer than anybody waits.
CATASTROPHES = ["(a+)+$", "(a|aa)+$", "(.*a){20}", "^(([a-z])+.)+[A-Z]([a-z])+$"]


@pytest.mark.parametrize("pattern", CATASTROPHES)
async def test_filter_that_would_backtrack_for_ever_is_bounded_and_delays_nobody(
    server: ZmqAgentServer, pattern: str
) -> None:
    script = "for n in $(seq 300); do head -c 3000 /dev/zero | tr '\\0' a; echo '!'; done"
    async with peer(server.endpoint) as slow, peer(server.endpoint) as fast:
        agent = await slow.spawn(script)
        await slow.end(agent)
        query = OutputQueryRequest(
            request_id=new_id(),
            agent_id=agent.id,
            stream=ZmqOutputStream.BOTH,
            filter=pattern,
            limit=1,
        )
        began = time.perf_counter()
        await slow.send(query)
        took = await round_trips(fast, agent, 50)
        response = await slow.reply(query.request_id)
        assert time.perf_counter() - began < 10
        assert response.success or response.error.startswith(("timeout: ", "invalid: "))
        assert statistics.median(took) < 0.05
        assert max(took) < 1.0
