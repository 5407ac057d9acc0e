"""Processes that are not the keeper's children: held by pidfd, never by an id alone."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from descartes_fast.server.keeper import leader as leader_module
from descartes_fast.server.keeper.leader import Adopted
from descartes_fast.server.keeper.loop import READ, Loop
from descartes_fast.server.keeper.proc import (
    StartTicks,
    start_ticks,
    status_of_zombie,
)
from descartes_fast.server.keeper.system import has_exited, status_by_pidfd

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfds")

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str, **settings: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sh", "-c", script], start_new_session=True, **settings)  # type: ignore[call-overload]
        started.append(process)
        return process  # type: ignore[no-any-return]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def wait_for_exit(pid: int) -> None:
    stop_at = time.monotonic() + 5
    while not has_exited(pid):
        assert time.monotonic() < stop_at
        time.sleep(0.002)


@pytest.mark.parametrize("reaped", [False, True])
@pytest.mark.parametrize(
    ("script", "code", "signum"), [("exit 0", 0, None), ("exit 7", 7, None), ("kill $$", None, 15)]
)
def test_exit_is_seen_without_reaping(
    start: Start, loop: Loop, script: str, code: int | None, signum: int | None, reaped: bool
) -> None:
    process = start(f"read x; {script}", stdin=subprocess.PIPE)
    adopted = Adopted(loop, process.pid, start_ticks(process.pid))
    seen: list[bool] = []
    adopted.watch(lambda: seen.append(True))
    assert process.stdin is not None
    process.stdin.close()
    wait_for_exit(process.pid)
    if reaped:
        process.wait()
        if status_by_pidfd(adopted.exit_fd) is None:
            pytest.skip("this kernel does not say it of reaped processes")
    loop.turn()
    how = adopted.collect()
    adopted.close()
    assert seen == [True]
    assert (how.code, how.signal) == (code, signum)
    assert how.user_secs is None


def test_process_of_another_start_is_not_held(start: Start, loop: Loop) -> None:
    process = start("sleep 60")
    adopted = Adopted(loop, process.pid, start_ticks(process.pid) + 1)
    assert adopted.exit_fd == -1
    with pytest.raises(ProcessLookupError):
        adopted.send(signal.SIGKILL, group=False)
    adopted.send_group(signal.SIGKILL)
    assert adopted.collect().status is None
    assert not adopted.owns_session()
    assert process.poll() is None


def test_group_of_a_dead_leader_is_signalled_by_pidfd(start: Start, loop: Loop) -> None:
    process = start("sleep 60 & echo $!; exit 0", stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as stdout:
        child = int(stdout.readline())
    adopted = Adopted(loop, process.pid, start_ticks(process.pid))
    handle = os.pidfd_open(child)
    wait_for_exit(process.pid)
    process.wait()
    adopted.send_group(signal.SIGKILL)
    adopted.close()
    gone: list[bool] = []
    loop.watch(handle, READ, lambda: gone.append(True))
    loop.call_later(5, lambda: None)
    loop.turn()
    loop.unwatch(handle)
    os.close(handle)
    assert gone


def test_group_without_the_kernels_help_is_signalled_while_the_leader_runs(
    start: Start, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = signal.pidfd_send_signal

    def older(fd: int, signum: int, siginfo: None = None, flags: int = 0) -> None:
        if flags:
            raise OSError(errno.EINVAL, "Invalid argument")
        real(fd, signum)

    groups: list[int] = []
    monkeypatch.setattr(leader_module.signal, "pidfd_send_signal", older)
    monkeypatch.setattr(leader_module.os, "killpg", lambda pid, signum: groups.append(pid))
    process = start("sleep 60")
    adopted = Adopted(loop, process.pid, start_ticks(process.pid))
    adopted.send_group(signal.SIGTERM)
    assert groups == [process.pid]
    adopted.send(signal.SIGKILL, group=False)
    assert process.wait(5) == -signal.SIGKILL
    adopted.send_group(signal.SIGTERM)
    adopted.close()
    assert groups == [process.pid], "the id may be anybody's by now"


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs another user")
def test_zero_of_another_users_process_is_not_taken_for_its_exit_code(start: Start) -> None:
    process = start("exit 0", user=65534)
    ticks = start_ticks(process.pid)
    wait_for_exit(process.pid)
    assert status_of_zombie(process.pid, ticks) is None
    process.wait()


def test_zombie_of_another_start_is_not_asked(start: Start) -> None:
    process = start("exit 3")
    ticks = start_ticks(process.pid)
    wait_for_exit(process.pid)
    assert status_of_zombie(process.pid, ticks) == 3 << 8
    assert status_of_zombie(process.pid, ticks + 1) is None
    process.wait()
    assert status_of_zombie(process.pid, ticks) is None


@pytest.mark.skipif(sys.platform != "linux", reason="who has no /proc has no ticks")
def test_start_of_a_new_process_is_the_one_that_the_system_tells(start: Start) -> None:
    known = StartTicks()
    for _ in range(20):
        not_before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        process = start("exit 0")
        ticks = known.of(process.pid, (not_before_ns, time.clock_gettime_ns(time.CLOCK_BOOTTIME)))
        assert ticks == start_ticks(process.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="who has no /proc has no ticks")
def test_system_that_tells_other_starts_than_its_clock_is_asked_each_time(start: Start) -> None:
    known = StartTicks()
    process = start("exit 0")
    ticks = start_ticks(process.pid)
    for _ in range(20):
        assert known.of(process.pid, (ticks * 10**9, ticks * 10**9)) == ticks
