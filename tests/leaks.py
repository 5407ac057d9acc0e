"""What a live test must not leave behind: processes, descriptors, ZeroMQ contexts, threads, tasks.

The test process is made a child subreaper, so whatever a test starts stays its
descendant, also when everything between the two is gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zmq

_PR_SET_CHILD_SUBREAPER = 36
_GRACE_SECS = 5.0
_TICK_SECS = 0.01


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What this process holds at one moment; each entry with words for a report."""

    processes: dict[int, str]
    descriptors: dict[int, str]
    contexts: dict[int, str]
    threads: dict[int, str]

    @classmethod
    def now(cls) -> Holdings:
        return cls(descendants(), _descriptors(), _open_contexts(), _our_threads())

    def more_than(self, before: Holdings) -> list[str]:
        """Return what is here and was not in ``before``, a line each."""
        more = [
            f"process {pid}: {words}"
            for pid, words in self.processes.items()
            if pid not in before.processes
        ]
        more += [
            f"ZeroMQ context: {words}"
            for key, words in self.contexts.items()
            if key not in before.contexts
        ]
        more += [
            f"thread: {words}" for key, words in self.threads.items() if key not in before.threads
        ]
        extra = len(self.descriptors) - len(before.descriptors)
        if extra > 0:
            new = [
                f"{fd} -> {words}"
                for fd, words in self.descriptors.items()
                if before.descriptors.get(fd) != words
            ]
            more.append(f"{extra} more file descriptors, among: {', '.join(new)}")
        return more


def wait_until_nothing_more(before: Holdings) -> list[str]:
    """Watch until all that came after ``before`` is gone; return what is left in the end."""
    left = _watch(lambda: Holdings.now().more_than(before))
    if left:
        # A reference cycle may be all that holds a closed object's descriptor.
        gc.collect()
        left = Holdings.now().more_than(before)
    return left


def reap_orphans(before: Holdings) -> None:
    """Collect the ended processes this one has inherited, so that no zombie stays."""
    for pid in descendants().keys() - before.processes.keys():
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


async def wait_until_no_task_but(before: set[asyncio.Task[object]]) -> list[str]:
    """Let the loop run until no task is left beside ``before``; return what is left."""
    deadline = time.monotonic() + _GRACE_SECS
    while left := [task for task in asyncio.all_tasks() - before if not _is_runner(task)]:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(_TICK_SECS)
    return [f"task {task!r}" for task in left]


def _is_runner(task: asyncio.Task[object]) -> bool:
    """Tell anyio's own tasks, which drive the test and its fixtures."""
    return getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")


def _watch(look: Callable[[], list[str]]) -> list[str]:
    deadline = time.monotonic() + _GRACE_SECS
    while (left := look()) and time.monotonic() < deadline:
        time.sleep(_TICK_SECS)
    return left


def descendants() -> dict[int, str]:
    """Return the processes below this one by pid; none where there is no /proc."""
    parents: dict[int, int] = {}
    words: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        state, parent = rest.split()[:2]
        pid = int(entry.name)
        parents[pid] = int(parent)
        words[pid] = f"{name} ({state})"
    found: dict[int, str] = {}
    frontier = {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found.update((pid, _described(pid, words[pid])) for pid in frontier)
    return found


def _described(pid: int, words: str) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return words
    return f"{words} {command[:200].decode(errors='replace')}".strip()


def _descriptors() -> dict[int, str]:
    found: dict[int, str] = {}
    folder = Path("/proc/self/fd") if sys.platform == "linux" else Path("/dev/fd")
    if not folder.exists():
        return found
    for name in os.listdir(folder):
        try:
            found[int(name)] = os.readlink(folder / name)
        except OSError:
            continue  # the listing's own descriptor
    return found


def _open_contexts() -> dict[int, str]:
    return {
        id(found): repr(found)
        for found in gc.get_objects()
        if issubclass(type(found), zmq.Context) and not found.closed
    }


def _our_threads() -> dict[int, str]:
    """Return the threads that we name; those of an event loop's executor are its own."""
    return {
        id(thread): repr(thread)
        for thread in threading.enumerate()
        if thread.name.startswith("descartes-fast")
    }
