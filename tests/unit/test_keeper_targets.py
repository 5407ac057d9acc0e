"""A signal to many processes in one step: whom it reaches, and who is said to be left out."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from descartes_fast.server.keeper.targets import Targets

NOBODYS_PID = 2**22 + 1  # above the highest that Linux gives


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started = [subprocess.Popen(["sleep", "1000"]) for _ in range(3)]
    yield started
    for process in started:
        process.kill()
        process.wait()


def packed(*agent_ids: UUID) -> bytes:
    return b"".join(agent_id.bytes for agent_id in agent_ids)


def test_signals_reach_those_named_and_the_others_are_told(
    processes: list[subprocess.Popen[bytes]],
) -> None:
    targets, ids = Targets(), [uuid4() for _ in processes]
    for agent_id, process in zip(ids, processes, strict=True):
        targets.add(str(agent_id), process.pid)
    gone = uuid4()
    targets.add(str(gone), NOBODYS_PID)
    asked = packed(ids[0], uuid4(), ids[2], gone, ids[0])
    assert targets.signal(asked, signal.SIGTERM) == [1, 3]
    assert processes[0].wait(5) == processes[2].wait(5) == -signal.SIGTERM
    assert processes[1].poll() is None
    targets.discard(str(ids[1]))
    assert targets.signal(packed(ids[1]), signal.SIGTERM) == [0]
    assert targets.signal(b"", signal.SIGTERM) == []
    assert processes[1].poll() is None


def wait_until_it_is_alone() -> None:
    """Wait for the end of the thread that helps, which nobody wants any more."""
    stop_at = time.monotonic() + 10
    while "targets-helper" in {
        Path(f"/proc/self/task/{task}/comm").read_text().strip()
        for task in os.listdir("/proc/self/task")
    }:
        assert time.monotonic() < stop_at
        time.sleep(0.05)


def test_many_at_once_reach_each_process_once_and_the_others_are_told() -> None:
    """So many that a second thread helps."""
    count = 600
    read_fd, write_fd = os.pipe()
    script = (
        "import os, signal\n"
        "for number in signal.SIGUSR1, signal.SIGUSR2:\n"
        "    signal.signal(number, lambda number, _: os.write(1, bytes([number])))\n"
        "os.write(1, b'r')\n"
        "while True: signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=write_fd)
    os.close(write_fd)
    try:
        assert os.read(read_fd, 1) == b"r"
        targets, there, gone = Targets(), uuid4(), [uuid4() for _ in range(count)]
        targets.add(str(there), process.pid)
        for signum in (signal.SIGUSR1, signal.SIGUSR2) * 20:
            at = random.randrange(count)
            asked = packed(*gone[:at], there, *gone[at + 1 :])
            assert targets.signal(asked, signum) == [n for n in range(count) if n != at]
            assert os.read(read_fd, 100) == bytes([signum])
        assert targets.signal(packed(*[there] * count), 0) == []
        if sys.platform == "linux":
            wait_until_it_is_alone()
        assert targets.signal(packed(*[there] * count), 0) == []
    finally:
        process.kill()
        process.wait()
        os.close(read_fd)


def test_any_number_come_and_go_and_each_is_found() -> None:
    order = random.Random(5)
    targets, there = Targets(), set[UUID]()
    # The same upper half: many want the same places.
    ids = [UUID(int=(7 << 64) + order.randrange(5000)) for _ in range(4000)]
    ids += [UUID(int=order.getrandbits(128)) for _ in range(4000)]
    for agent_id in order.choices(ids, k=30_000):
        if agent_id in there:
            targets.discard(str(agent_id))
            there.remove(agent_id)
        else:
            targets.add(str(agent_id), os.getpid())
            there.add(agent_id)
    assert len(targets) == len(there)
    missing = [position for position, agent_id in enumerate(ids) if agent_id not in there]
    assert targets.signal(packed(*ids), 0) == missing


def test_who_is_added_again_has_the_newer_process(
    processes: list[subprocess.Popen[bytes]],
) -> None:
    targets, agent_id = Targets(), uuid4()
    for process in processes[:2]:
        targets.add(str(agent_id), process.pid)
    assert len(targets) == 1
    assert targets.signal(packed(agent_id), signal.SIGTERM) == []
    assert processes[1].wait(5) == -signal.SIGTERM
    assert processes[0].poll() is None


@pytest.mark.parametrize("pid", [0, 1, -1, -7])
def test_no_group_and_no_first_process_is_taken(pid: int) -> None:
    with pytest.raises(ValueError, match="no agent has process"):
        Targets().add(str(uuid4()), pid)


def test_id_that_is_no_uuid_is_not_kept() -> None:
    targets = Targets()
    targets.add("an agent", NOBODYS_PID)
    assert len(targets) == 0
    targets.discard("an agent")
