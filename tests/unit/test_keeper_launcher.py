"""Programs in processes of their own: what they begin with, and what is said of those that fail."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from descartes_fast.server.keeper.launcher import Launch, Launcher, LaunchFailed
from descartes_fast.server.keeper.proc import start_ticks

SHELL = b"/bin/sh"


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    thread = threading.Thread(target=launcher.work)
    thread.start()
    yield launcher
    launcher.close()
    thread.join()


def described(*argv: str, executables: list[bytes] | None = None, **changes: Any) -> Launch:
    settings: dict[str, Any] = {
        "environment": [b"PATH=/usr/bin:/bin"],
        "has_stdin": False,
        "directory": None,
        "umask": 0o22,
        "limits": [],
        "oom_score": None,
        **changes,
    }
    words = [os.fsencode(word) for word in argv]
    return Launch(executables or [SHELL], words, settings.pop("environment"), **settings)


def done(launcher: Launcher, launch: Launch) -> Launch:
    launcher.begin(launch)
    assert launcher.take(30)
    return launch


def output_of(launcher: Launcher, *argv: str, **changes: Any) -> str:
    """Run a program and return all that it says."""
    launch = done(launcher, described(*argv, **changes))
    launch.check()
    os.close(launch.stderr_fd)
    os.set_blocking(launch.stdout_fd, True)
    with open(launch.stdout_fd, "rb") as output:
        said = output.read()
    assert os.waitpid(launch.pid, 0) == (launch.pid, 0)
    return said.decode()


def test_program_begins_as_it_was_told(launcher: Launcher, tmp_path: Path) -> None:
    said = output_of(
        launcher,
        "sh",
        "-c",
        'pwd; umask; echo "$NAME"; ulimit -n; ulimit -Hn; ps -o sid= -p $$; echo $$',
        environment=[b"PATH=/usr/bin:/bin", b"NAME=a value"],
        directory=os.fsencode(tmp_path),
        umask=0o27,
        limits=[(resource.RLIMIT_NOFILE, 77, 78)],
    ).split("\n")
    assert said[:5] == [str(tmp_path), "0027", "a value", "77", "78"]
    assert int(said[5]) == int(said[6])


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are listed in /proc")
def test_program_begins_with_nothing_of_ours_that_closes_on_exec(launcher: Launcher) -> None:
    passed_on = {int(fd) for fd in os.listdir("/proc/self/fd") if _is_passed_on(int(fd))}
    script = """
import os
for fd in range(1000):
    try:
        os.fstat(fd)
    except OSError:
        continue
    print(fd)
"""
    python = os.fsencode(sys.executable)
    found = output_of(launcher, sys.executable, "-c", script, executables=[python]).split()
    assert {0, 1, 2} <= set(map(int, found)) <= {0, 1, 2} | passed_on


def _is_passed_on(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # that of the list
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the size of the table is in /proc")
def test_start_does_not_copy_all_descriptors_that_are_open(launcher: Launcher) -> None:
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(400)]
    try:
        status = output_of(launcher, "sh", "-c", "exec cat /proc/self/status")
    finally:
        for fd in fds:
            os.close(fd)
    (size,) = (line.split()[1] for line in status.splitlines() if line.startswith("FDSize"))
    assert int(size) <= 256 < max(fds)


# As in a container whose filter knows neither call, or lets nobody leave what is shared.
FILTERED = """
import ctypes, errno, os, struct, sys, threading
from descartes_fast.server.keeper.launcher import Launch, Launcher
LOAD, EQUAL, RETURN, ERRNO, ALLOW = 0x20, 0x15, 0x06, 0x00050000 | errno.EPERM, 0x7FFF0000
steps = [(LOAD, 0, 0, 0)]
for call in map(int, sys.argv[1:]):
    steps += [(EQUAL, 0, 1, call), (RETURN, 0, 0, ERRNO)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in
                                            [*steps, (RETURN, 0, 0, ALLOW)]))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
libc = ctypes.CDLL(None)
program = Program(len(steps) + 1, ctypes.addressof(code))
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0) == 0
launcher = Launcher()
launch = Launch([b"/bin/sh"], [b"sh", b"-c", b"read x; echo said $x"], [b"PATH=/bin"],
                has_stdin=True, directory=None, umask=0o22, limits=[], oom_score=None)
launcher.begin(launch)
launcher.close()
launcher.work()
launch.check()
os.write(launch.stdin_fd, b"it\\n")
os.waitpid(launch.pid, 0)
print(os.read(launch.stdout_fd, 100).decode())
"""


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="knows calls by number"
)
@pytest.mark.parametrize("calls", [(), (436,), (436, 272)])  # close_range, unshare
def test_program_is_started_where_a_filter_refuses_calls(calls: tuple[int, ...]) -> None:
    command = [sys.executable, "-c", FILTERED, *map(str, calls)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.strip() == "said it", done.stderr


def test_first_program_that_is_there_is_run(launcher: Launcher, tmp_path: Path) -> None:
    places = [os.fsencode(tmp_path / "nothing"), os.fsencode(tmp_path / "no" / "folder"), SHELL]
    assert output_of(launcher, "sh", "-c", "echo here", executables=places) == "here\n"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="signals are read in /proc")
def test_signals_have_their_defaults_and_none_is_blocked(launcher: Launcher) -> None:
    earlier = signal.signal(signal.SIGUSR1, lambda *_: None)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        words = output_of(launcher, "sh", "-c", "exec cat /proc/self/status")
    finally:
        signal.signal(signal.SIGUSR1, earlier)
    found = dict(line.split(":\t") for line in words.splitlines() if line.startswith("Sig"))
    assert int(found["SigCgt"], 16) == 0
    assert int(found["SigBlk"], 16) == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked


@pytest.mark.parametrize(
    ("changes", "stage", "code"),
    [
        ({"executables": [b"/nothing/is/here"]}, "exec", errno.ENOENT),
        ({"executables": [b"/etc/passwd", b"/nothing"]}, "exec", errno.EACCES),
        ({"directory": b"/nothing"}, "directory", errno.ENOENT),
        ({"limits": [(10_000, 1, 1)]}, "limits", errno.EINVAL),
    ],
)
def test_child_that_fails_says_where_and_leaves_nothing(
    launcher: Launcher, changes: dict[str, Any], stage: str, code: int
) -> None:
    before = os.listdir("/dev/fd")
    with pytest.raises(LaunchFailed) as caught:
        output_of(launcher, "sh", **changes)
    assert (caught.value.stage, caught.value.errno) == (stage, code)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert os.listdir("/dev/fd") == before


def test_arguments_that_are_too_long_are_the_systems_to_refuse(launcher: Launcher) -> None:
    with pytest.raises(LaunchFailed) as caught:
        output_of(launcher, "sh", "x" * 200_000)
    assert (caught.value.stage, caught.value.errno) == ("exec", errno.E2BIG)


def test_no_handler_of_ours_runs_in_a_child(launcher: Launcher) -> None:
    ran: list[int] = []
    earlier = signal.signal(signal.SIGUSR1, lambda *_: ran.append(os.getpid()))
    done = threading.Event()

    def disturb() -> None:
        while not done.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=disturb)
    try:
        thread.start()
        for _ in range(200):
            assert output_of(launcher, "sh", "-c", "echo well") == "well\n"
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGUSR1, earlier)
    assert set(ran) == {os.getpid()}


def test_launches_are_done_in_their_order_and_told_by_a_descriptor(launcher: Launcher) -> None:
    launches = [described("sh", "-c", f"exit {number}") for number in range(40)]
    for launch in launches:
        launcher.begin(launch)
    taken = 0
    while taken < len(launches):
        assert select.select([launcher], [], [], 30)[0], "nothing was told"
        launcher.hear()
        while launcher.take():
            assert launches[taken].pid
            taken += 1
    assert not select.select([launcher], [], [], 0)[0]
    codes = [os.waitstatus_to_exitcode(os.waitpid(launch.pid, 0)[1]) for launch in launches]
    assert codes == list(range(40))
    close_ends(*launches)


def test_process_is_known_to_be_starting_until_its_launch_is_taken(launcher: Launcher) -> None:
    launch = described("sh", "-c", "exit 3")
    launcher.begin(launch)
    assert launcher.is_starting(first_to_exit())
    assert launcher.is_starting(launch.pid)
    assert launcher.take(30)
    assert not launcher.is_starting(launch.pid)
    assert os.waitpid(launch.pid, 0) == (launch.pid, 3 << 8)
    close_ends(launch)


def test_stdin_is_a_pipe_where_it_is_asked_for(launcher: Launcher) -> None:
    launch = done(launcher, described("sh", "-c", "exec cat", has_stdin=True))
    assert not any(os.get_blocking(fd) for fd in (launch.stdin_fd, launch.stdout_fd))
    os.write(launch.stdin_fd, b"a word")
    os.close(launch.stdin_fd)
    assert os.waitpid(launch.pid, 0) == (launch.pid, 0)
    assert os.read(launch.stdout_fd, 100) == b"a word"
    os.close(launch.stdout_fd)
    os.close(launch.stderr_fd)


@pytest.mark.skipif(sys.platform != "linux", reason="starts are noted in /proc")
def test_process_was_made_between_the_two_times(launcher: Launcher) -> None:
    launch = done(launcher, described("sh", "-c", "true"))
    ticks = start_ticks(launch.pid)
    first, last = (at // (10**9 // os.sysconf("SC_CLK_TCK")) for at in launch.made_between_ns)
    assert first <= ticks <= last
    assert abs(launch.started_at_ns - time.time_ns()) < 10**10
    os.waitpid(launch.pid, 0)
    close_ends(launch)


def test_without_descriptors_there_is_no_process_and_nothing_is_left(launcher: Launcher) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = set(os.listdir("/dev/fd"))
    # Two descriptors are free beside the last eight: enough for one pipe.
    resource.setrlimit(resource.RLIMIT_NOFILE, (_first_free() + 10, hard))
    try:
        launch = done(launcher, described("sh"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with pytest.raises(LaunchFailed) as caught:
        launch.check()
    assert (caught.value.stage, caught.value.errno) == ("pipes", errno.EMFILE)
    assert set(os.listdir("/dev/fd")) == before


def test_closing_finishes_what_was_begun() -> None:
    launcher = Launcher()
    launches = [described("sh", "-c", "exit 4") for _ in range(5)]
    for launch in launches:
        launcher.begin(launch)
    launcher.close()
    launcher.close()
    launcher.work()
    assert [os.waitpid(launch.pid, 0)[1] for launch in launches] == [4 << 8] * 5
    close_ends(*launches)


def first_to_exit() -> int:
    while True:
        with contextlib.suppress(ChildProcessError):  # there is none yet
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            assert found is not None
            return found.si_pid


def test_what_is_killed_before_it_is_made_does_not_run(tmp_path: Path) -> None:
    launcher = Launcher()
    launch = described("sh", "-c", f"echo ran > {tmp_path}/file; exec sleep 60")
    launcher.begin(launch)
    launcher.kill(launch)
    launcher.close()
    launcher.work()
    assert launcher.take()
    assert os.waitpid(launch.pid, 0) == (launch.pid, signal.SIGKILL)
    assert os.listdir(tmp_path) == []
    close_ends(launch)


def test_launch_that_is_not_done_is_waited_for_so_long() -> None:
    launcher = Launcher()  # and nobody works
    assert not launcher.take(30)
    launcher.begin(described("sh"))
    began = time.monotonic()
    assert not launcher.take(0.05)
    assert time.monotonic() - began >= 0.05
    assert not launcher.take()


def test_call_is_done_in_the_thread_that_works_between_two_launches(launcher: Launcher) -> None:
    threads: list[threading.Thread] = []
    launch = described("sh", "-c", "exit 0")
    launcher.begin(launch)
    launcher.call(lambda: threads.append(threading.current_thread()))
    assert threads[0] is not threading.current_thread()

    def fail() -> None:
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        launcher.call(fail)
    assert launcher.take(30)
    assert output_of(launcher, "sh", "-c", "echo on") == "on\n"
    os.waitpid(launch.pid, 0)
    close_ends(launch)


@pytest.mark.skipif(sys.platform != "linux", reason="the score is in /proc")
def test_score_is_taken_back_with_few_descriptors(launcher: Launcher) -> None:
    score = int(Path("/proc/self/oom_score_adj").read_text()) + 10  # up is always allowed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Two pipes go into what is free beside the last eight, and fill it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (_first_free() + 12, hard))
    try:
        launch = done(
            launcher,
            described("sh", "-c", "cat /proc/self/oom_score_adj", oom_score=b"%d" % score),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    launch.check()
    os.waitpid(launch.pid, 0)
    assert int(os.read(launch.stdout_fd, 100)) == score
    close_ends(launch)


def close_ends(*launches: Launch) -> None:
    for launch in launches:
        for fd in (launch.stdin_fd, launch.stdout_fd, launch.stderr_fd):
            if fd >= 0:
                os.close(fd)


def _first_free() -> int:
    fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)
    return fd
