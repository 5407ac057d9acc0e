"""A keeper that hangs: the server ends in time, and its agents with it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import AgentConfig, AgentStatus, connect
from descartes_fast.testing import descartes_server
from faults.keeper_process import keeper_pid
from faults.processes import children_of
from faults.restarts import restartable_server
from faults.server_process import server_process
from raw_peers import peer

if TYPE_CHECKING:
    from descartes_fast import AgentInfo
    from raw_peers import Peer

# One child stays in the agent's group, the other leaves it; both say who they are.
FAMILY = "sleep 300 & echo $!; setsid sleep 300 & echo $!; echo $$; exec sleep 300"


async def family(asking: Peer, agent: AgentInfo) -> list[int]:
    text = ""
    while text.count("\n") < 3:
        asked: Any = {"offset": len(text), "wait_secs": 5, "encoding": "text"}
        text += (await asking.data(agent, "read_stdout", asked))["data"] or ""
    return [int(line) for line in text.split()]


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


@pytest.mark.leaves_orphans
async def test_server_with_a_hung_keeper_ends_its_agents_itself() -> None:
    async with descartes_server(stop_grace_secs=0.5) as server:
        runtime = server.config.state_path() / "run"
        async with peer(server.endpoint) as asking:
            pids = await family(asking, await asking.spawn(FAMILY))
        keeper = keeper_pid()
        os.kill(keeper, signal.SIGSTOP)
        began = time.monotonic()
        await server.aclose()
        assert time.monotonic() - began < 12
        assert [name for name in os.listdir(runtime) if name.endswith(".sock")] == []
    async with asyncio.timeout(5):
        while any(runs(pid) for pid in [keeper, *pids]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.leaves_orphans
async def test_hung_keeper_without_agents_does_not_hold_up_the_end() -> None:
    async with descartes_server() as server:
        os.kill(keeper_pid(), signal.SIGSTOP)
        began = time.monotonic()
        await server.aclose()
        assert time.monotonic() - began < 8


@pytest.mark.leaves_orphans
async def test_hung_keeper_is_replaced_by_the_next_server_which_adopts_its_agents() -> None:
    with restartable_server() as server:
        async with connect(server.endpoint, request_timeout_secs=30) as client:
            config = AgentConfig(model_backend="sh", task="exec sleep 300")
            agent = await client.spawn_remote(config)
            server.kill()
            hung = server.keeper_pid()
            assert hung is not None
            os.kill(hung, signal.SIGSTOP)
            await asyncio.to_thread(server.start)
            assert not runs(hung)
            assert server.keeper_pid() not in (hung, None)
            assert await client.get_agent_status(agent) is AgentStatus.RUNNING
            await client.kill_agent(agent)
            end = await client.wait_agent(agent, timeout_secs=10)
            assert end.status is AgentStatus.TERMINATED


@pytest.mark.leaves_orphans
async def test_further_signals_cut_the_waits_for_a_hung_keeper_short() -> None:
    with server_process() as server:
        (keeper,) = children_of(server.process.pid)
        async with peer(server.endpoint) as asking:
            pids = await family(asking, await asking.spawn(FAMILY))
            os.kill(keeper, signal.SIGSTOP)
            began = time.monotonic()
            while server.process.poll() is None and time.monotonic() - began < 10:
                server.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.2)
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 5
    async with asyncio.timeout(5):
        while any(runs(pid) for pid in [keeper, *pids]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
