"""What an agent's stdin has accepted reaches it, and its end too, though the keeper is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from descartes_fast import AgentConfig, AgentTimeout, connect
from descartes_fast.config import BackendConfig
from descartes_fast.testing import descartes_server
from faults.keeper_process import keeper_pid
from faults.processes import frozen
from faults.restarts import restartable_server
from faults.serving import spawn

pytestmark = pytest.mark.leaves_orphans

# Reads when it is told to, far more than a pipe holds; the sum shows a gap or a repetition.
READS_LATE = "while [ ! -e {go} ]; do sleep 0.02; done; cksum; exit 5"
MUCH = b"".join(b"%07d\n" % number for number in range(60_000))


def cksum(data: bytes) -> bytes:
    return subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("restarted", [False, True])
async def test_written_bytes_and_the_end_arrive_under_the_next_keeper(
    tmp_path: Path, restarted: bool
) -> None:
    with restartable_server() as server:
        async with connect(server.endpoint, request_timeout_secs=30) as client:
            task = READS_LATE.format(go=tmp_path / "go")
            closed, open_ = [await spawn(client, task) for _ in range(2)]
            await client.write_agent_stdin(closed, MUCH, close=True)
            await client.write_agent_stdin(open_, MUCH)
            if restarted:
                await asyncio.to_thread(server.restart)
                await client.list_remote_agents()
                await until_pipes_are_held(server.pid)
            before = server.kill_keeper()
            async with asyncio.timeout(10):
                while server.keeper_pid() in (None, before):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await client.write_agent_stdin(open_, b"more\n", close=True)
            (tmp_path / "go").touch()
            for agent, data in ((closed, MUCH), (open_, MUCH + b"more\n")):
                await client.wait_agent(agent, timeout_secs=10)
                assert await client.read_agent_stdout(agent) == cksum(data)


async def test_task_that_is_longer_than_a_pipe_arrives_whole_under_the_next_keeper(
    tmp_path: Path,
) -> None:
    task = READS_LATE.format(go=tmp_path / "go")
    backend = BackendConfig(
        command=("sh", "-c", task), task="stdin", stdin="close-after-task", environment=("PATH",)
    )
    async with (
        descartes_server(journal=True, backends={"task": backend}) as server,
        connect(server.endpoint) as client,
    ):
        text = MUCH.decode()
        agent = await client.spawn_remote(AgentConfig(model_backend="task", task=text))
        os.kill(keeper_pid(), signal.SIGKILL)
        (tmp_path / "go").touch()
        await client.wait_agent(agent, timeout_secs=10)
        assert await client.read_agent_stdout(agent) == cksum(MUCH)


async def test_end_of_stdin_comes_though_nobody_waited_for_the_answer() -> None:
    async with (
        descartes_server(request_timeout_secs=0.3) as server,
        connect(server.endpoint) as client,
    ):
        agent = await spawn(client, "cat; exit 5")
        with frozen(keeper_pid()), pytest.raises(AgentTimeout):
            await client.write_agent_stdin(agent, b"in\n", close=True)
        assert (await client.wait_agent(agent, timeout_secs=5)).exit_code == 5
        assert await client.read_agent_stdout(agent) == b"in\n"


async def until_pipes_are_held(server: int) -> None:
    """Wait until a server has the backlogs of both agents: files without a name."""
    async with asyncio.timeout(5):
        while sum("memfd" in os.readlink(file) for file in descriptors(server)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def descriptors(pid: int) -> list[Path]:
    return [file for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()]
