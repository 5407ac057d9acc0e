"""Noticing exits without reaping, and telling an agent's processes from strangers."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from descartes_fast.server.keeper import exits, trees
from descartes_fast.server.keeper.exits import PidfdExits, SignalExits, choose_exits
from descartes_fast.server.keeper.loop import READ, WRITE, Loop, SelectorPoller
from descartes_fast.server.keeper.system import has_exited
from descartes_fast.server.keeper.trees import MARKER, GroupTable, ProcessTable, choose_trees

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="agents run on POSIX systems")


@pytest.fixture(params=[None, SelectorPoller], ids=["usual", "selectors"])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    loop = Loop(request.param and request.param())
    yield loop
    loop.close()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, marked as agent "a" of keeper "k"."""
    process = subprocess.Popen(
        ["sleep", "60"], start_new_session=True, env={**os.environ, MARKER: "k/a"}
    )
    yield process
    process.kill()
    process.wait()


def turn_until(loop: Loop, condition: Callable[[], bool]) -> None:
    stop_at = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < stop_at
        loop.call_later(0.01, lambda: None)
        loop.turn()


@pytest.mark.parametrize("kind", [PidfdExits, SignalExits])
def test_exit_is_noticed_once_and_not_reaped(
    loop: Loop, kind: type[PidfdExits] | type[SignalExits]
) -> None:
    if kind is PidfdExits and not hasattr(os, "pidfd_open"):
        pytest.skip("no pidfds here")
    watch = kind(loop)
    seen: list[int] = []
    process = subprocess.Popen(["sh", "-c", "exit 3"])
    watch.watch(process.pid, lambda: seen.append(process.pid))

    def came() -> bool:
        watch.child_signalled()
        return bool(seen)

    turn_until(loop, came)
    watch.child_signalled()
    watch.forget(process.pid)
    assert seen == [process.pid]
    assert has_exited(process.pid)
    assert process.wait() == 3
    assert not has_exited(process.pid)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfds here")
def test_exit_of_a_process_is_noticed_though_no_descriptor_is_left(loop: Loop) -> None:
    """Twice: what gave way for the first is held again when there are some."""
    watch = PidfdExits(loop)
    seen: list[int] = []
    processes = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for process, are_none_left in zip(processes, (True, False, True), strict=True):
            if are_none_left:
                free = os.dup(0)
                os.close(free)
                resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            watch.watch(process.pid, lambda: seen.append(1))
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for process in processes:
            process.kill()
    turn_until(loop, lambda: len(seen) == 3)
    watch.close()
    for process in processes:
        process.wait()


def test_exit_that_is_forgotten_is_not_reported(loop: Loop) -> None:
    watch = SignalExits(loop)
    process = subprocess.Popen(["true"])
    watch.watch(process.pid, lambda: pytest.fail("it was forgotten"))
    watch.forget(process.pid)
    process.wait()
    watch.child_signalled()
    loop.turn()


def test_watch_without_pidfds_looks_at_sigchld(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> int:
        raise OSError

    monkeypatch.setattr(exits.os, "pidfd_open", refused, raising=False)
    assert isinstance(choose_exits(loop), SignalExits)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_marked_process_is_its_agents_and_no_other_keepers(
    sleeper: subprocess.Popen[bytes],
) -> None:
    while b"=k/a" not in _environment(sleeper.pid):
        time.sleep(0.001)  # an exec sets the name before the environment
    assert ProcessTable("k").members({})["a"] == [sleeper.pid]
    assert "a" not in ProcessTable("other").members({})


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_process_that_took_over_an_id_is_not_signalled(
    sleeper: subprocess.Popen[bytes],
) -> None:
    table = ProcessTable("k")
    table.members({})
    table._seen[sleeper.pid].start_ticks = b"1"
    table.send(sleeper.pid, signal.SIGKILL)
    time.sleep(0.05)
    assert sleeper.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_signal_reaches_a_member_with_and_without_pidfds(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: int) -> int:
        raise OSError

    table = ProcessTable("k")
    while sleeper.pid not in table.members({}).get("a", []):
        time.sleep(0.001)
    table.send(sleeper.pid, signal.SIGSTOP)
    monkeypatch.setattr(trees.os, "pidfd_open", refused, raising=False)
    table.send(sleeper.pid, signal.SIGTERM)
    table.send(sleeper.pid, signal.SIGCONT)
    assert sleeper.wait(5) == -signal.SIGTERM
    table.send(sleeper.pid, signal.SIGKILL)


def test_group_is_all_that_is_known_where_there_is_no_proc(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees.sys, "platform", "darwin")
    table = choose_trees("k")
    assert isinstance(table, GroupTable)
    assert table.members({sleeper.pid: "a"}) == {"a": [-sleeper.pid]}
    table.send(-sleeper.pid, signal.SIGTERM)
    assert sleeper.wait(5) == -signal.SIGTERM
    assert table.members({sleeper.pid: "a"}) == {}


def test_callback_that_raises_does_not_end_the_loop(
    loop: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[str] = []
    read_end, write_end = os.pipe()

    def fail() -> None:
        os.read(read_end, 1)
        raise RuntimeError("a fault in one agent's handling")

    loop.watch(read_end, READ, fail)
    os.write(write_end, b"x")
    loop.call_soon(lambda: called.append("soon"))
    loop.call_later(0, lambda: called.append("later"))
    turn_until(loop, lambda: len(called) == 2)
    loop.unwatch(read_end)
    loop.unwatch(read_end)
    os.close(read_end)
    os.close(write_end)
    assert "a fault in one agent's handling" in capsys.readouterr().err


def _environment(pid: int) -> bytes:
    with open(f"/proc/{pid}/environ", "rb") as file:
        return file.read()


def test_descriptor_can_be_watched_for_something_else_and_no_longer(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    seen: list[str] = []

    def turn() -> list[str]:
        seen.clear()
        loop.call_soon(lambda: None)
        loop.turn()
        return seen

    loop.watch(ours.fileno(), READ, lambda: seen.append("reads"))
    assert turn() == []
    loop.watch(ours.fileno(), READ | WRITE, lambda: seen.append("both"))
    assert turn() == ["both"]
    loop.watch(ours.fileno(), READ, lambda: seen.append("reads"))
    theirs.send(b"x")
    assert turn() == ["reads"]
    loop.unwatch(ours.fileno())
    loop.unwatch(ours.fileno())
    assert turn() == []
    ours.close()
    theirs.close()


def test_descriptor_that_an_earlier_callback_gave_to_another_is_not_called_for(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    others, last = socket.socketpair()
    seen: list[str] = []
    for one, other in ((ours, others), (others, ours)):

        def first(other: socket.socket = other) -> None:
            seen.append("first")
            loop.unwatch(other.fileno())
            loop.watch(other.fileno(), READ, lambda: seen.append("second"))

        loop.watch(one.fileno(), READ, first)
    theirs.send(b"x")
    last.send(b"x")
    loop.turn()
    assert seen == ["first"]
    for each in (ours, theirs, others, last):
        loop.unwatch(each.fileno())
        each.close()


def test_only_what_left_this_session_may_be_left_by_an_agent(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = ProcessTable("k")
    with subprocess.Popen(["sleep", "60"]) as being_made:
        monkeypatch.setattr(trees, "own_children", lambda: {being_made.pid})
        assert table.strays({}, lambda pid: False) == []
        monkeypatch.setattr(trees, "own_children", lambda: {being_made.pid, sleeper.pid})
        assert table.strays({}, lambda pid: False) == [sleeper.pid]
        assert table.strays({}, lambda pid: pid == sleeper.pid) == []
        assert table.strays({sleeper.pid: "a"}, lambda pid: False) == []
        being_made.kill()
    monkeypatch.setattr(trees, "own_children", lambda: {being_made.pid})
    assert table.strays({}, lambda pid: False) == []


# By itself: a thread that does not hold the signal back would be given it.
LISTENER = """
import os, select, signal, subprocess, sys
from descartes_fast.server.keeper.system import child_signals
fd = child_signals()
assert signal.SIGCHLD in signal.pthread_sigmask(signal.SIG_BLOCK, ())
assert not select.select([fd], [], [], 0)[0]
with subprocess.Popen(["true"]):
    assert select.select([fd], [], [], 30)[0]
assert int.from_bytes(os.read(fd, 4096)[:4], sys.byteorder) == signal.SIGCHLD
assert not select.select([fd], [], [], 0)[0]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has signalfd")
def test_exit_of_a_child_is_heard_by_who_holds_its_signal_back() -> None:
    command = [sys.executable, "-c", LISTENER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
