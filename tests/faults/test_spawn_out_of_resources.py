"""The system has no more to give: a typed error with the reason, and nothing half registered."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    AgentTimeout,
    BackendConfig,
    ServerBusy,
    SpawnFailed,
    ZmqClient,
    connect,
)
from faults.keeper_process import keeper_pid

if TYPE_CHECKING:
    from conftest import StartServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses prlimit and /proc")


@contextmanager
def limited(pid: int, kind: int, soft: int) -> Iterator[None]:
    """Give a process a lower soft limit for the length of a block."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, kind, before)


async def assert_unharmed(client: ZmqClient) -> None:
    """Check that no agent was made, and that the next one runs as if nothing had been."""
    assert await client.list_remote_agents() == []
    assert (await client.health_check()).healthy
    agent = await client.spawn_remote(AgentConfig(model_backend="sh", task="true"))
    assert (await client.wait_agent(agent, timeout_secs=10)).status == AgentStatus.COMPLETED


def make_file(path: Path, content: bytes, mode: int = 0o755) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def unstartable(folder: Path) -> dict[str, tuple[BackendConfig, str]]:
    """Return backends that cannot be started, and words of the reason for each."""
    missing = str(folder / "missing")
    return {
        "missing": (BackendConfig(command=(missing,)), "was not found"),
        "missing-on-path": (
            BackendConfig(command=("no-such-tool-anywhere",)),
            "no-such-tool-anywhere' was not found",
        ),
        "directory": (BackendConfig(command=(str(folder),)), "not executable"),
        "not-executable": (
            BackendConfig(command=(make_file(folder / "data", b"#!/bin/sh\n", 0o644),)),
            "not executable",
        ),
        "not-a-program": (
            BackendConfig(command=(make_file(folder / "noise", bytes(range(256))),)),
            "not in a format",
        ),
        "empty-file": (
            BackendConfig(command=(make_file(folder / "empty", b""),)),
            "not in a format",
        ),
        "no-interpreter": (
            BackendConfig(command=(make_file(folder / "script", b"#!/no/such/interpreter\n"),)),
            "needs an interpreter",
        ),
        "no-directory": (
            BackendConfig(command=("true",), working_dir=missing),
            "cannot be entered",
        ),
        "file-as-directory": (
            BackendConfig(command=("true",), working_dir=make_file(folder / "file", b"")),
            "cannot be entered",
        ),
    }


@pytest.mark.parametrize(
    "name",
    [
        "missing",
        "missing-on-path",
        "directory",
        "not-executable",
        "not-a-program",
        "empty-file",
        "no-interpreter",
        "no-directory",
        "file-as-directory",
    ],
)
async def test_program_that_cannot_be_started_is_said_why(
    start_server: StartServer, tmp_path: Path, name: str
) -> None:
    backend, reason = unstartable(tmp_path)[name]
    sh = BackendConfig(command=("sh", "-c", "{task}"))
    server = await start_server(backends={"broken": backend, "sh": sh})
    async with connect(server.endpoint) as client:
        with pytest.raises(SpawnFailed, match=reason):
            await client.spawn_remote(AgentConfig(model_backend="broken", task="x"))
        await assert_unharmed(client)


async def test_arguments_over_the_keepers_limit_are_a_failed_spawn(
    server: Any, client: ZmqClient
) -> None:
    # The server's own check goes by its own stack limit; the keeper's is lower here.
    environment = {f"AGENT_{number}": "x" * 100_000 for number in range(10)}
    config = AgentConfig(model_backend="sh", task="true", environment=environment)
    refused = pytest.raises(SpawnFailed, match="longer than this system allows")
    with limited(keeper_pid(), resource.RLIMIT_STACK, 1024 * 1024), refused:
        await client.spawn_remote(config)
    await assert_unharmed(client)


async def test_agent_without_room_for_its_program_has_failed(start_server: StartServer) -> None:
    tiny = BackendConfig(command=("sh", "-c", "{task}"), limits={"as": 64 * 1024})
    sh = BackendConfig(command=("sh", "-c", "{task}"))
    server = await start_server(backends={"tiny": tiny, "sh": sh})
    async with connect(server.endpoint) as client:
        # The kernel may refuse the exec, or kill the program that it has begun to load.
        try:
            agent = await client.spawn_remote(AgentConfig(model_backend="tiny", task="true"))
        except SpawnFailed:
            await assert_unharmed(client)
        else:
            ended = await client.wait_agent(agent, timeout_secs=10)
            assert ended.status == AgentStatus.FAILED


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB and few files."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = "size=1m,nr_inodes=64,mode=700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system takes rights that are not here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_disk_below_its_reserve_takes_no_spawns(
    start_server: StartServer, small_disk: Path
) -> None:
    server = await start_server(state_dir=str(small_disk / "state"))
    async with connect(server.endpoint) as client:
        with pytest.raises(ServerBusy, match="disk"):
            await client.spawn_remote(AgentConfig(model_backend="sh", task="true"))
        health = await client.health_check()
        assert not health.healthy
        assert health.metadata is not None
        assert "disk" in health.metadata["reason"]
        assert await client.list_remote_agents() == []


async def test_disk_without_room_for_a_file_fails_the_spawn(
    start_server: StartServer, small_disk: Path
) -> None:
    server = await start_server(state_dir=str(small_disk / "state"), disk_reserve_bytes=0)
    fillers = small_disk / "fillers"
    fillers.mkdir()
    with suppress(OSError):
        for number in itertools.count():
            (fillers / str(number)).touch()
    async with connect(server.endpoint) as client:
        with pytest.raises(SpawnFailed, match="the disk is full"):
            await client.spawn_remote(AgentConfig(model_backend="sh", task="true"))
        assert await client.list_remote_agents() == []
        shutil.rmtree(fillers)
        await assert_unharmed(client)


def fill(disk: Path) -> Path:
    """Leave no byte free on a disk; return the file to remove."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


async def once_noted(call: Callable[[], Awaitable[Any]]) -> Any:
    """Return what a call returns once the server can note it: it tries the disk every second."""
    async with asyncio.timeout(10):
        while True:
            with suppress(ServerBusy):
                return await call()
            await asyncio.sleep(0.05)


async def waiting_for_go(client: ZmqClient, task: str) -> AgentInfo:
    """Spawn an agent that does its task when its stdin says so: a spawn needs room on the disk."""
    return await client.spawn_remote(AgentConfig(model_backend="sh", task=f"read go; {task}"))


async def test_disk_that_is_full_holds_an_agent_up_and_loses_nothing(
    start_server: StartServer, small_disk: Path
) -> None:
    server = await start_server(state_dir=str(small_disk / "state"), disk_reserve_bytes=0)
    async with connect(server.endpoint) as client:
        agent = await waiting_for_go(client, "echo out; echo err >&2; exit 3")
        filler = fill(small_disk)
        with suppress(ServerBusy):  # what was done cannot be noted; it was done nevertheless
            await client.write_agent_stdin(agent, b"go\n")
        with pytest.raises(AgentTimeout):
            await client.wait_agent(agent, timeout_secs=0.5)
        assert (await client.health_check()).active_agents == 1
        filler.unlink()
        ended = await client.wait_agent(agent, timeout_secs=10)
        assert (ended.status, ended.exit_code) == (AgentStatus.FAILED, 3)
        assert await once_noted(lambda: client.read_agent_stdout(agent)) == b"out\n"
        assert await once_noted(lambda: client.read_agent_stderr(agent)) == b"err\n"


async def test_disk_that_is_full_takes_no_spawns(
    start_server: StartServer, small_disk: Path
) -> None:
    server = await start_server(state_dir=str(small_disk / "state"), disk_reserve_bytes=0)
    filler = fill(small_disk)
    async with connect(server.endpoint) as client:
        with pytest.raises(ServerBusy, match="full"):
            await client.spawn_remote(AgentConfig(model_backend="sh", task="true"))
        assert await client.list_remote_agents() == []
        filler.unlink()
        async with asyncio.timeout(10):  # the journal is tried again every second
            while not (await client.health_check()).healthy:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await assert_unharmed(client)


@pytest.mark.parametrize("task", ["echo out", "echo out; sleep 60"], ids=["ended", "running"])
async def test_disk_that_is_full_holds_up_no_kill_and_no_shutdown(
    start_server: StartServer, small_disk: Path, task: str
) -> None:
    server = await start_server(state_dir=str(small_disk / "state"), disk_reserve_bytes=0)
    async with connect(server.endpoint) as client:
        killed, left = [await waiting_for_go(client, task) for _ in range(2)]
        fill(small_disk)
        for agent in (killed, left):
            with suppress(ServerBusy):
                await client.write_agent_stdin(agent, b"go\n")
        with pytest.raises(AgentTimeout):
            await client.wait_agent(killed, timeout_secs=0.5)
        with suppress(ServerBusy):
            await client.kill_agent(killed)
        ended = await client.wait_agent(killed, timeout_secs=5)
        assert ended.status == AgentStatus.TERMINATED
        assert await client.get_agent_status(left) == AgentStatus.RUNNING
    async with asyncio.timeout(5):
        await server.aclose()


# A server that runs as a user of its own, where the limit of processes counts: it does not
# for root. The limit is set on the keeper alone, which then cannot make a child.
NPROC = """
import asyncio, os, resource, sys
sys.path.insert(0, sys.argv[1])
from descartes_fast import AgentConfig, SpawnFailed, connect
from descartes_fast.testing import descartes_server
from faults.keeper_process import keeper_pid

async def main():
    async with descartes_server() as server, connect(server.endpoint) as client:
        config = AgentConfig(model_backend="sh", task="true")
        pid = keeper_pid()
        before = resource.prlimit(pid, resource.RLIMIT_NPROC)
        resource.prlimit(pid, resource.RLIMIT_NPROC, (1, before[1]))
        try:
            await client.spawn_remote(config)
        except SpawnFailed as error:
            print("refused:", error)
        print("agents:", len(await client.list_remote_agents()))
        resource.prlimit(pid, resource.RLIMIT_NPROC, before)
        agent = await client.spawn_remote(config)
        print("then:", (await client.wait_agent(agent, timeout_secs=10)).exit_code)

asyncio.run(main())
"""


def test_processes_at_their_limit_fail_the_spawn(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NPROC, str(Path(__file__).parents[1])]
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("no setpriv: the limit of processes does not count for root")
        # Only what lets it read the interpreter, wherever that is; nothing that lifts limits.
        capabilities = "-all,+dac_override,+dac_read_search"
        command = [
            setpriv,
            "--reuid=54321",
            "--regid=54321",
            "--clear-groups",
            f"--inh-caps={capabilities}",
            f"--ambient-caps={capabilities}",
            f"--bounding-set={capabilities}",
            *command,
        ]
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    refused, agents, then = done.stdout.splitlines()
    assert "may have no more processes" in refused
    assert agents == "agents: 0"
    assert then == "then: 0"
