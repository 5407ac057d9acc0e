"""A keeper that hangs: the server ends in time, and its agents with it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import AgentConfig, AgentStatus, UsageError, connect
from descartes_fast.server import keeper_joining, keeper_process
from descartes_fast.server.keeper_process import PYTHON_OPTIONS
from descartes_fast.testing import descartes_server
from faults.keeper_process import keeper_pid
from faults.processes import children_of
from faults.restarts import restartable_server
from faults.server_process import server_process
from faults.serving import serving, spawn, state
from raw_peers import peer

if TYPE_CHECKING:
    from descartes_fast import AgentInfo
    from raw_peers import Peer

__all__ = ["state"]  # a fixture

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
async def test_keeper_that_is_stopped_is_continued_by_the_next_server_and_loses_nothing() -> None:
    with restartable_server() as server:
        async with connect(server.endpoint, request_timeout_secs=30) as client:
            config = AgentConfig(model_backend="sh", task="echo one; cat; exit 5")
            agent = await client.spawn_remote(config)
            server.kill()
            stopped = server.keeper_pid()
            assert stopped is not None
            os.kill(stopped, signal.SIGSTOP)
            await asyncio.to_thread(server.start)
            assert server.keeper_pid() == stopped
            await client.write_agent_stdin(agent, b"two\n", close=True)
            assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 5
            assert await client.read_agent_stdout(agent) == b"one\ntwo\n"


@pytest.mark.leaves_orphans
async def test_keeper_that_does_not_answer_in_the_end_is_replaced_and_its_agents_adopted(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(state) as client:
        agent = await spawn(client, "exec sleep 300")
        hung = keeper_pid()
    os.kill(hung, signal.SIGSTOP)
    monkeypatch.setattr(keeper_joining, "_HELLO_SECS", 0.3)
    async with serving(state, keep_agents=False) as client:
        assert not runs(hung)
        assert await client.get_agent_status(agent) is AgentStatus.RUNNING
        await client.kill_agent(agent)
        end = await client.wait_agent(agent, timeout_secs=10)
        assert end.status is AgentStatus.TERMINATED


async def test_keeper_that_tries_its_new_program_for_long_is_not_killed_for_it(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(state) as client:
        agent = await spawn(client, "cat; exit 5")
        keeper = keeper_pid()
    slow = standing_in(tmp_path, "if '--check' in sys.argv: time.sleep(2.5)")
    monkeypatch.setattr(keeper_process, "_PROGRAM", slow)
    monkeypatch.setattr(keeper_process, "build_digest", lambda: "0123456789abcdef")
    monkeypatch.setattr(keeper_joining, "_HELLO_SECS", 2.0)
    async with serving(state, keep_agents=False) as client:
        assert keeper_pid() == keeper
        await client.write_agent_stdin(agent, b"in\n", close=True)
        assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 5


@pytest.mark.leaves_orphans
async def test_new_program_that_fails_when_it_takes_over_costs_no_agent_its_pipes(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(state) as client:
        agent = await spawn(client, "cat; exit 5")
        await client.write_agent_stdin(agent, b"one\n")
        keeper = keeper_pid()
    failing = standing_in(tmp_path, "if '--resume' in sys.argv: sys.exit(1)")
    monkeypatch.setattr(keeper_process, "_PROGRAM", failing)
    monkeypatch.setattr(keeper_process, "build_digest", lambda: "0123456789abcdef")
    async with serving(state, keep_agents=False) as client:
        assert not runs(keeper)
        await client.write_agent_stdin(agent, b"two\n", close=True)
        end = await client.wait_agent(agent, timeout_secs=10)
        assert await client.read_agent_stdout(agent) == b"one\ntwo\n"
        assert end.exit_code in (5, None), "None where the kernel does not tell of adopted ones"


@pytest.mark.parametrize("replaced", ["journal is lost", "journal is off"])
async def test_agents_that_are_not_in_the_journal_are_left_alone_and_the_server_does_not_start(
    state: Path, replaced: str
) -> None:
    async with serving(state) as client:
        agent = await spawn(client, "cat; exit 5")
        keeper = keeper_pid()
    journal, elsewhere = state / "journal.sqlite", state / "elsewhere.sqlite"
    if replaced == "journal is lost":
        journal.rename(elsewhere)
    with pytest.raises(UsageError, match="state stop"):
        async with serving(
            state, journal=replaced == "journal is lost", keep_agents=replaced == "journal is lost"
        ):
            pass
    if replaced == "journal is lost":
        elsewhere.replace(journal)
    async with serving(state, keep_agents=False) as client:
        assert keeper_pid() == keeper
        await client.write_agent_stdin(agent, b"in\n", close=True)
        assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 5


def standing_in(folder: Path, line: str) -> Path:
    """Return a program that runs the keeper's, after a line of its own."""
    path = folder / "program.py"
    real = repr(str(keeper_process._PROGRAM))
    path.write_text(
        f"import os, sys, time\n{line}\n"
        f"os.execv(sys.executable, [sys.executable, *{PYTHON_OPTIONS!r}, {real}, *sys.argv[1:]])\n"
    )
    return path


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
