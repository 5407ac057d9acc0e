"""A server that keeps its agents: the next one has them, also one of another build."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from descartes_fast import AgentStatus
from descartes_fast.server import assembly, keeper_process
from descartes_fast.server.keeper.protocol import VERSION, frame
from descartes_fast.server.recovery import Recovery
from descartes_fast.server.state_dir import runtime_directory
from faults.keeper_process import keeper_pid
from faults.serving import serving, spawn, state

__all__ = ["state"]  # a fixture


async def test_next_server_in_the_same_process_has_the_agents(state: Path) -> None:
    async with serving(state) as client:
        agent = await spawn(client, "cat; exit 4")
        await client.write_agent_stdin(agent, b"one\n")
        keeper = keeper_pid()
    async with serving(state, keep_agents=False) as client:
        assert keeper_pid() == keeper
        await client.write_agent_stdin(agent, b"two\n", close=True)
        assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 4
        assert await client.read_agent_stdout(agent) == b"one\ntwo\n"


async def test_keeper_goes_with_the_server_if_there_is_no_agent_to_keep(state: Path) -> None:
    async with serving(state) as client:
        agent = await spawn(client, "exit 4")
        await client.wait_agent(agent, timeout_secs=10)
    with pytest.raises(ValueError, match="not enough values"):
        keeper_pid()
    async with serving(state) as client:
        assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 4


async def test_keeper_of_another_build_is_renewed_with_its_agents(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(keeper_process, "build_digest", lambda: "0123456789abcdef")
        async with serving(state) as client:
            agent = await spawn(client, "cat; exit 4")
            paused = await spawn(client, "exec sleep 60")
            await client.pause_agent(paused)
            await client.write_agent_stdin(agent, b"one\n")
            keeper = keeper_pid()
    assert b"0123456789abcdef" in command_line(keeper)
    async with serving(state, keep_agents=False) as client:
        assert keeper_pid() == keeper
        assert keeper_process.build_digest().encode() in command_line(keeper)
        await client.write_agent_stdin(agent, b"two\n", close=True)
        assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 4
        assert await client.read_agent_stdout(agent) == b"one\ntwo\n"
        assert await client.get_agent_status(paused) is AgentStatus.PAUSED
        await client.kill_agent(paused)
        end = await client.wait_agent(paused, timeout_secs=10)
        assert end.status is AgentStatus.TERMINATED


async def test_keeper_that_cannot_be_renewed_goes_on_as_it_is(
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(state) as client:
        agent = await spawn(client, "cat; exit 4")
        keeper = keeper_pid()
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(1)\n")
    monkeypatch.setattr(keeper_process, "build_digest", lambda: "0123456789abcdef")
    monkeypatch.setattr(keeper_process, "_PROGRAM", broken)
    async with serving(state, keep_agents=False) as client:
        assert "another build" in caplog.text
        assert keeper_pid() == keeper
        await client.write_agent_stdin(agent, b"", close=True)
        assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 4


async def test_agents_are_kept_where_the_state_directory_has_a_long_path(tmp_path: Path) -> None:
    state = tmp_path / ("x" * 120)
    async with serving(state) as client:
        agent = await spawn(client, "cat; exit 4")
    runtime = runtime_directory(state)
    assert runtime.parent != state
    assert (runtime / "keeper.sock").exists()
    async with serving(state, keep_agents=False) as client:
        await client.write_agent_stdin(agent, b"", close=True)
        assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 4
    assert not runtime.exists()


async def test_connection_that_was_taken_by_another_is_taken_back(state: Path) -> None:
    async with serving(state, keep_agents=False) as client:
        agent = await spawn(client, "echo out; read go; exit 4")
        ended = await spawn(client, "sleep 0.2; exit 5")
        keeper = keeper_pid()
        other = socket.socket(socket.AF_UNIX)
        with other:
            other.connect(str(state / "run" / "keeper.sock"))
            hello = {"op": "hello", "id": 1, "version": VERSION, "on_disconnect": "keep"}
            other.sendall(frame(hello))
            assert other.recv(4096)
            assert (await client.wait_agent(ended, timeout_secs=10)).exit_code == 5
        async with asyncio.timeout(10):
            while not (await client.health_check()).healthy:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert keeper_pid() == keeper
        await client.write_agent_stdin(agent, b"go\n")
        assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 4


async def test_start_that_is_given_up_leaves_the_agents_to_the_next_server(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(state) as client:
        agent = await spawn(client, "cat; exit 4")
        keeper = keeper_pid()
    recovered = asyncio.Event()
    original = Recovery.run

    async def run(self: Recovery) -> Any:
        await original(self)
        recovered.set()
        await asyncio.Event().wait()

    async def start() -> None:
        async with serving(state, keep_agents=False):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(Recovery, "run", run)
        starting = asyncio.create_task(start())
        await recovered.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    async with serving(state, keep_agents=False) as client:
        assert keeper_pid() == keeper
        await client.write_agent_stdin(agent, b"in\n", close=True)
        assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 4


async def test_start_that_fails_at_its_last_step_leaves_the_agents_to_the_next_server(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(state) as client:
        agent = await spawn(client, "cat; exit 4")

    def fail(*_: object) -> None:
        raise OSError("not today")

    with monkeypatch.context() as patch:
        patch.setattr(assembly, "_serve", fail)
        with pytest.raises(OSError, match="not today"):
            async with serving(state, keep_agents=False):
                pass
    async with serving(state, keep_agents=False) as client:
        await client.write_agent_stdin(agent, b"in\n", close=True)
        assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 4


async def test_retention_of_agents_goes_on_with_the_next_server(state: Path) -> None:
    async with serving(state) as client:
        agents = []
        for number in range(4):
            agents.append(await spawn(client, f"echo {number}"))
            await client.wait_agent(agents[-1], timeout_secs=10)
    async with serving(state, retain_agents=2) as client:
        listed = await client.list_remote_agents()
        assert [info.id for info in listed] == [agents[3].id, agents[2].id]
        assert await client.read_agent_stdout(agents[2]) == b"2\n"
    async with serving(state) as client:
        assert len(await client.list_remote_agents()) == 2
        assert len(list((state / "agents").iterdir())) == 2


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
