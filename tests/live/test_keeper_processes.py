"""What the keeper makes of a launch: the process it starts, and what it says if it cannot."""

# ruff: noqa: ASYNC110, ASYNC240 - files of a test are small and local
from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from descartes_fast.errors import CommunicationError, InvalidContext, NotFound, SpawnFailed
from descartes_fast.server import keeper_link, keeper_process
from descartes_fast.server.keeper_link import KeeperLink
from live.keepers import Events, TestKeeper, is_alive, open_keeper, until
from live.raw_keeper import held_program

REPORT = """
import json, os, signal, sys
print(json.dumps({
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
    "session": os.getsid(0), "group": os.getpgid(0), "pid": os.getpid(), "cwd": os.getcwd(),
    "umask": os.umask(0), "environment": dict(os.environ),
    "ignored": [line.split()[1] for line in open("/proc/self/status") if line.startswith("SigIgn")],
    "blocked": [line.split()[1] for line in open("/proc/self/status") if line.startswith("SigBlk")],
    "nofile": __import__("resource").getrlimit(__import__("resource").RLIMIT_NOFILE)[0],
}))
"""


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[TestKeeper]:
    async with open_keeper(tmp_path) as keeper:
        yield keeper


async def test_launch_reports_the_process_that_runs(keeper: TestKeeper) -> None:
    launch = keeper.prepare("sleep", "60")
    started = await keeper.link.launch(launch)
    assert Path(f"/proc/{started.pid}/comm").read_text() == "sleep\n"
    assert started.start_ticks > 0
    assert os.getsid(started.pid) == os.getpgid(started.pid) == started.pid


async def test_agent_begins_with_nothing_of_the_keeper(keeper: TestKeeper) -> None:
    import resource

    others = [await keeper.launch("cat", stdin="pipe") for _ in range(5)]
    launch = await keeper.python(REPORT, cwd="/")
    assert (await keeper.end(launch)).exit_code == 0
    report = json.loads(await keeper.stdout(launch))
    assert report["fds"] == [0, 1, 2]
    assert report["session"] == report["group"] == report["pid"]
    assert report["cwd"] == "/"
    assert report["umask"] == 0o022
    # CPython itself ignores SIGPIPE and SIGXFSZ; nothing else may come from above.
    assert int(report["ignored"][0], 16) & ~(1 << 12 | 1 << 24) == 0
    assert int(report["blocked"][0], 16) == 0
    assert set(report["environment"]) <= {"PATH", "DESCARTES_FAST_AGENT", "LC_CTYPE"}
    assert report["nofile"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert len(others) == 5


async def test_agent_of_a_server_that_ignores_signals_does_not(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with open_keeper(tmp_path) as keeper:
            launch = await keeper.shell("grep SigIgn /proc/self/status")
            await keeper.end(launch)
            ignored = int((await keeper.stdout(launch)).split()[1], 16)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ignored == 0


async def test_files_are_readable_by_their_owner_only(keeper: TestKeeper, tmp_path: Path) -> None:
    launch = await keeper.shell("echo out; echo err >&2")
    await keeper.end(launch)
    for path in (launch.stdout_path, launch.stderr_path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(Path(path).parent).st_mode) == 0o700
    (socket,) = (tmp_path / "run").glob("*.sock")
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("/no/such/program",), "was not found"),
        (("no-such-program",), "was not found"),
        (("/etc/passwd",), "not executable"),
        (("/etc/passwd/x",), "was not found"),
        (("/tmp",), "not executable"),
        (("x" * 5000,), "name is too long"),
        (("echo", "x" * 3_000_000), "longer than this system allows"),
        (("echo", "a\0b"), "cannot be passed"),
        (("echo", "\ud800"), "cannot be passed"),
        ((), "cannot be passed"),
    ],
    ids=[
        "missing",
        "not-in-path",
        "not-executable",
        "below-a-file",
        "directory",
        "long-name",
        "too-long",
        "nul",
        "surrogate",
        "empty",
    ],
)
async def test_launch_that_cannot_be_says_why_and_leaves_nothing(
    keeper: TestKeeper, argv: tuple[str, ...], words: str
) -> None:
    descriptors = (await keeper.link.ping())["open_fds"]
    launch = keeper.prepare(*argv)
    with pytest.raises(SpawnFailed, match=words):
        await keeper.link.launch(launch)
    with pytest.raises(NotFound):
        await keeper.link.kill(launch.agent_id)
    figures = await keeper.link.ping()
    assert (figures["open_fds"], figures["agents"], figures["known"]) == (descriptors, 0, 0)
    assert not Path(launch.stdout_path).parent.exists()


async def test_launch_names_what_is_wrong_with_a_script(keeper: TestKeeper, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(SpawnFailed, match="needs an interpreter that is not there"):
        await keeper.launch(str(script))
    script.write_bytes(b"\x7fELF, but not really")
    with pytest.raises(SpawnFailed, match="not in a format"):
        await keeper.launch(str(script))
    for cwd in (tmp_path / "missing", script):
        with pytest.raises(SpawnFailed, match="working directory"):
            await keeper.launch("true", cwd=str(cwd))


async def test_launch_with_a_bad_environment_is_refused(keeper: TestKeeper) -> None:
    for environment in ({"A=B": "c"}, {"A": "b\0"}, {"A": "x" * 3_000_000}):
        with pytest.raises(SpawnFailed):
            await keeper.launch("true", environment=environment)


async def test_arguments_arrive_byte_for_byte(keeper: TestKeeper) -> None:
    words = ["", " ", "-n", "ä\n€", b"\xff\xfe".decode("utf-8", "surrogateescape"), "'\"$(id)"]
    launch = await keeper.launch("printf", "%s|", *words)
    assert (await keeper.end(launch)).exit_code == 0
    assert (await keeper.stdout(launch)) == b"".join(os.fsencode(word) + b"|" for word in words)


async def test_limits_hold_and_wrong_ones_are_refused(keeper: TestKeeper) -> None:
    launch = await keeper.shell(
        "ulimit -n; ulimit -Hn; ulimit -c", limits={"nofile": 77, "core": 0}
    )
    await keeper.end(launch)
    assert await keeper.stdout(launch) == b"77\n77\n0\n"
    with pytest.raises(SpawnFailed, match="no resource limit 'nonsense'"):
        await keeper.launch("true", limits={"nonsense": 1})
    launch = await keeper.python("x = bytearray(1 << 30)", limits={"as": 200 << 20})
    assert (await keeper.end(launch)).exit_code == 1
    assert b"MemoryError" in Path(launch.stderr_path).read_bytes()


async def test_launch_of_a_known_id_is_refused(keeper: TestKeeper) -> None:
    launch = await keeper.launch("sleep", "60")
    with pytest.raises(SpawnFailed, match="started already"):
        await keeper.link.launch(launch)
    assert (await keeper.link.ping())["agents"] == 1


async def test_launch_never_writes_to_a_file_that_is_there(
    keeper: TestKeeper, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    link = tmp_path / "link"
    link.symlink_to(target)
    for path in (target, link):
        with pytest.raises(SpawnFailed, match="no file for the output"):
            await keeper.launch("echo", "x", stdout_path=str(path))
    assert target.read_text() == "kept"


@pytest.mark.parametrize("is_there", [True, False])
async def test_spare_directory_becomes_the_outputs_if_it_is_there(
    keeper: TestKeeper, is_there: bool
) -> None:
    spare = keeper.directory / "spare"
    keeper.directory.mkdir()
    if is_there:
        spare.mkdir(mode=0o700)
        number = spare.stat().st_ino
    launch = await keeper.launch("echo", "x", spare_directory=str(spare))
    await keeper.end(launch)
    assert await keeper.stdout(launch) == b"x\n"
    if is_there:
        assert Path(launch.stdout_path).parent.stat().st_ino == number
    assert not spare.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="uses a lease")
async def test_cancelled_launch_leaves_no_process(keeper: TestKeeper) -> None:
    keeper.directory.mkdir()
    with held_program(keeper.directory) as program:
        usual = [["sleep", "60"]] * 24
        argvs = [*usual, [str(program), "60"], *usual]  # behind that one they wait
        launches = [keeper.prepare(*argv) for argv in argvs]
        tasks = [asyncio.create_task(keeper.link.launch(launch)) for launch in launches]
        await until(lambda: any(task.done() for task in tasks))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    given_up = [launch for launch, task in zip(launches, tasks, strict=True) if task.cancelled()]
    assert len(given_up) > len(usual)

    async def left() -> int:
        return int(str((await keeper.link.ping())["known"]))

    async with asyncio.timeout(5):
        while await left() > len(launches) - len(given_up):
            await asyncio.sleep(0.01)
    assert not any(Path(launch.stdout_path).exists() for launch in given_up)
    assert not keeper.events.ended


async def test_keeper_out_of_descriptors_refuses_and_goes_on(keeper: TestKeeper) -> None:
    import resource

    running = await keeper.launch("cat", stdin="pipe")
    used = int(str((await keeper.link.ping())["open_fds"]))
    hard = resource.prlimit(keeper.link.pid, resource.RLIMIT_NOFILE)[1]
    refusals: list[str] = []
    for spare in range(12):
        resource.prlimit(keeper.link.pid, resource.RLIMIT_NOFILE, (used + spare, hard))
        try:
            await keeper.end(await keeper.launch("true"))
        except SpawnFailed as error:
            refusals.append(str(error))
    resource.prlimit(keeper.link.pid, resource.RLIMIT_NOFILE, (hard, hard))
    assert refusals
    assert all("file descriptors" in words or "watch" in words for words in refusals)
    assert int(str((await keeper.link.ping())["open_fds"])) == used
    await keeper.link.write_stdin(running.agent_id, b"still here")
    assert await keeper.stdout(running, 10) == b"still here"


async def test_keeper_refuses_what_it_does_not_know(keeper: TestKeeper) -> None:
    from descartes_fast.errors import Unsupported

    with pytest.raises(Unsupported, match="dance"):
        await keeper.link._ask("dance")
    launch = await keeper.launch("sleep", "60")
    with pytest.raises(InvalidContext):
        await keeper.link.signal(launch.agent_id, 4711)
    assert (await keeper.link.ping())["agents"] == 1


async def test_keeper_survives_the_terminal_and_ends_agents_when_terminated(
    tmp_path: Path,
) -> None:
    async with open_keeper(tmp_path) as keeper:
        launch = keeper.prepare("sleep", "60")
        started = await keeper.link.launch(launch)
        for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            os.kill(keeper.link.pid, signum)
        assert (await keeper.link.ping())["agents"] == 1
        os.kill(keeper.link.pid, signal.SIGTERM)
        assert (await keeper.end(launch)).signal == signal.SIGTERM
        await until(lambda: bool(keeper.events.lost))
        assert not is_alive(started.pid)
        with pytest.raises(CommunicationError):
            await keeper.link.ping()
    assert len(keeper.events.lost) == 1


async def test_killed_keeper_is_noticed_and_fails_what_is_under_way(tmp_path: Path) -> None:
    async with open_keeper(tmp_path) as keeper:
        os.kill(keeper.link.pid, signal.SIGSTOP)
        ping = asyncio.create_task(keeper.link.ping())
        await asyncio.sleep(0)
        os.kill(keeper.link.pid, signal.SIGKILL)
        with pytest.raises(CommunicationError):
            await ping
        await until(lambda: bool(keeper.events.lost))


async def test_closing_ends_every_agent_and_the_keeper(tmp_path: Path) -> None:
    async with open_keeper(tmp_path) as keeper:
        launch = keeper.prepare("sh", "-c", "setsid sleep 60 & env -i setsid sleep 60 & wait")
        started = await keeper.link.launch(launch)
        pid = keeper.link.pid
        await asyncio.sleep(0.1)
    assert not is_alive(started.pid)
    assert not is_alive(pid)
    assert keeper.events.ended[launch.agent_id].signal == signal.SIGKILL
    assert not keeper.events.lost
    await keeper.link.aclose()
    with pytest.raises(CommunicationError):
        await keeper.link.launch(replace(launch))
    assert not list((tmp_path / "run").glob("*.sock"))


@pytest.mark.leaves_orphans
async def test_keeper_and_agents_end_when_the_server_is_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from live.keepers import open_keeper
async def main():
    async with open_keeper(Path({str(tmp_path)!r})) as keeper:
        started = await keeper.link.launch(
            keeper.prepare("sh", "-c", "trap '' TERM; setsid sleep 60 & sleep 60"))
        print(keeper.link.pid, started.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    pids = [int(word) for word in (await server.stdout.readline()).split()]
    server.kill()
    await server.wait()
    server._transport.close()  # type: ignore[attr-defined]
    await until(lambda: not any(is_alive(pid) for pid in pids))


async def test_runtime_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    from descartes_fast.errors import UsageError

    with pytest.raises(UsageError, match="too long"):
        await KeeperLink.open(tmp_path / ("x" * 120), Events())


async def test_keeper_that_hangs_is_killed_when_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_link, "_END_SECS", 0.2)
    async with open_keeper(tmp_path) as keeper:
        os.kill(keeper.link.pid, signal.SIGSTOP)
    assert not is_alive(keeper.link.pid)
    assert keeper.events.lost, "its agents are somebody else's to end now"
    assert list((tmp_path / "run").glob("*.sock")) == []


async def test_keeper_that_ends_before_it_answers_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text(
        "import socket, sys\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        "listener.bind(sys.argv[2])\n"
        "listener.listen()\n"
        "print('ready', flush=True)\n"
        "listener.accept()\n"
    )
    monkeypatch.setattr(keeper_process, "_PROGRAM", program)
    events = Events()
    with pytest.raises(CommunicationError):
        await KeeperLink.open(tmp_path / "run", events)
    assert not events.lost


async def test_keeper_that_cannot_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper_process, "_PROGRAM", Path("/no/such/program"))
        with pytest.raises(CommunicationError, match="did not start"):
            await KeeperLink.open(tmp_path / "run", Events())


async def test_cancelled_opening_leaves_no_keeper(tmp_path: Path) -> None:
    opening = asyncio.create_task(KeeperLink.open(tmp_path / "run", Events()))
    await asyncio.sleep(0.01)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
