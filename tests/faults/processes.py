"""Looks at this machine's processes, for tests of what must not be left running."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def running(words: str) -> list[int]:
    """Return the processes, zombies aside, whose command line holds ``words``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        if words.encode() in command and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Have all threads of a process stand still for the length of a block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        for task in Path("/proc").glob(f"{pid}/task/*"):  # without /proc it is not seen to
            while (task / "stat").read_text().rpartition(")")[2].split()[0] != "T":
                time.sleep(0.0005)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def children_of(parent: int) -> dict[int, str]:
    """Return a process's children by id, each with the letter of its state (``Z``: a zombie)."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(ppid) == parent:
            found[int(entry.name)] = state
    return found


def memory_bytes(pid: int | None = None) -> int:
    """Return how much memory a process occupies: this one, with the server and the clients in it,
    if no other is given."""
    statm = Path(f"/proc/{'self' if pid is None else pid}/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
