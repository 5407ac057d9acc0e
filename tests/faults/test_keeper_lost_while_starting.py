"""The keeper, or the connection to it, is lost while an agent is being started."""

# ruff: noqa: ASYNC110, ASYNC240 - other processes have no events to wait for
from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    AgentTimeout,
    CommunicationError,
    ExecutionError,
    ServerBusy,
    ZmqClient,
)
from descartes_fast.server.keeper_link import KeeperLink, Launch, Started
from faults.keeper_process import keeper_pid

pytestmark = pytest.mark.leaves_orphans


async def spawn(client: ZmqClient, task: str) -> AgentInfo:
    return await client.spawn_remote(AgentConfig(model_backend="sh", task=task))


def lost_after_launch(monkeypatch: pytest.MonkeyPatch, file: Path, *, keeper_too: bool) -> None:
    """Let the program of the next launch write ``file``, and its reply never arrive."""
    launch = KeeperLink.launch

    async def lost(self: KeeperLink, asked: Launch) -> Started:
        monkeypatch.undo()
        await launch(self, asked)
        while not file.exists() or not file.read_text():
            await asyncio.sleep(0.01)
        if keeper_too:
            os.kill(self.pid, signal.SIGKILL)
        else:
            self._connection.lose("the test has cut it")
        while self.lost is None:
            await asyncio.sleep(0.001)
        raise CommunicationError("the keeper is gone")

    monkeypatch.setattr(KeeperLink, "launch", lost)


async def test_program_that_ran_is_killed_listed_and_its_spawn_not_called_undone(
    client: ZmqClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "started"
    lost_after_launch(monkeypatch, file, keeper_too=True)
    with pytest.raises(ExecutionError, match="may have run"):
        await spawn(client, f"echo $$ > {file}; exec sleep 60")
    async with asyncio.timeout(5):
        while runs(int(file.read_text())):
            await asyncio.sleep(0.01)
    (agent,) = await client.list_remote_agents()
    assert agent.status is AgentStatus.FAILED


async def test_agent_of_which_only_the_reply_was_lost_runs(
    client: ZmqClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "started"
    lost_after_launch(monkeypatch, file, keeper_too=False)
    agent = await spawn(client, f"echo $$ > {file}; read word; exit 4")
    assert agent.status is AgentStatus.RUNNING
    await client.write_agent_stdin(agent, b"go\n")
    assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 4


async def test_spawn_that_the_keeper_has_not_begun_is_refused_as_busy_and_leaves_nothing(
    client: ZmqClient, tmp_path: Path
) -> None:
    file = tmp_path / "started"
    before = keeper_pid()
    os.kill(before, signal.SIGSTOP)
    spawning = asyncio.create_task(spawn(client, f"echo $$ > {file}"))
    while not await client.list_remote_agents():
        await asyncio.sleep(0.01)
    os.kill(before, signal.SIGKILL)
    with pytest.raises((ServerBusy, AgentTimeout)) as refused:
        await spawning
    assert refused.type is ServerBusy
    assert await client.list_remote_agents() == []
    assert not file.exists()


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
