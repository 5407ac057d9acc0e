"""Programs in processes of their own: what they begin with, and what is said of those that fail."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from descartes_fast.server.keeper.fork_exec import ChildFailed, fork_exec

SHELL = b"/bin/sh"


@pytest.fixture
def null() -> Iterator[int]:
    fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def output_of(null: int, *argv: str, executables: list[bytes] | None = None, **changes: Any) -> str:
    """Run a program and return all that it says."""
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as output:
        try:
            settings: dict[str, Any] = {
                "stdin": null,
                "stdout": write_end,
                "stderr": write_end,
                "directory": None,
                "umask": 0o22,
                "limits": [],
                **changes,
            }
            pid = fork_exec(
                executables or [SHELL],
                [os.fsencode(word) for word in argv],
                settings.pop("environment", [b"PATH=/usr/bin:/bin"]),
                **settings,
            )
        finally:
            os.close(write_end)
        said = output.read()
    assert os.waitpid(pid, 0) == (pid, 0)
    return said.decode()


def test_program_begins_as_it_was_told(null: int, tmp_path: Path) -> None:
    said = output_of(
        null,
        "sh",
        "-c",
        'pwd; umask; echo "$NAME"; ulimit -n; ulimit -Hn; ps -o sid= -p $$; echo $$',
        environment=[b"PATH=/usr/bin:/bin", b"NAME=a value"],
        directory=os.fsencode(tmp_path),
        umask=0o27,
        limits=[(resource.RLIMIT_NOFILE, 77)],
    ).split("\n")
    assert said[:5] == [str(tmp_path), "0027", "a value", "77", "77"]
    assert int(said[5]) == int(said[6])


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are listed in /proc")
def test_program_begins_with_nothing_of_ours_that_closes_on_exec(null: int) -> None:
    passed_on = {int(fd) for fd in os.listdir("/proc/self/fd") if _is_passed_on(int(fd))}
    script = "import os; print(*os.listdir('/proc/self/fd'))"
    python = os.fsencode(sys.executable)
    found = output_of(null, sys.executable, "-c", script, executables=[python]).split()
    assert len(found) == len({0, 1, 2} | passed_on) + 1  # that of the list itself


def _is_passed_on(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # that of the list
        return False


def test_first_program_that_is_there_is_run(null: int, tmp_path: Path) -> None:
    places = [os.fsencode(tmp_path / "nothing"), os.fsencode(tmp_path / "no" / "folder"), SHELL]
    assert output_of(null, "sh", "-c", "echo here", executables=places) == "here\n"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="signals are read in /proc")
def test_signals_have_their_defaults_and_none_is_blocked(null: int) -> None:
    earlier = signal.signal(signal.SIGUSR1, lambda *_: None)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        words = output_of(null, "sh", "-c", "exec cat /proc/self/status")
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
        ({"limits": [(10_000, 1)]}, "limits", errno.EINVAL),
        ({"stdin": 9999}, "preparing", errno.EBADF),
    ],
)
def test_child_that_fails_says_where_and_leaves_nothing(
    null: int, changes: dict[str, Any], stage: str, code: int
) -> None:
    before = os.listdir("/dev/fd")
    with pytest.raises(ChildFailed) as caught:
        output_of(null, "sh", **changes)
    assert (caught.value.stage, caught.value.errno) == (stage, code)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert os.listdir("/dev/fd") == before


def test_arguments_that_are_too_long_are_the_systems_to_refuse(null: int) -> None:
    with pytest.raises(ChildFailed) as caught:
        output_of(null, "sh", "x" * 200_000)
    assert (caught.value.stage, caught.value.errno) == ("exec", errno.E2BIG)


def test_no_handler_of_ours_runs_in_a_child(null: int) -> None:
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
            assert output_of(null, "sh", "-c", "echo well") == "well\n"
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGUSR1, earlier)
    assert set(ran) == {os.getpid()}


def test_ends_that_would_be_overwritten_are_refused(null: int) -> None:
    with pytest.raises(ValueError, match="must not be among"):
        output_of(null, "sh", stdout=1)
