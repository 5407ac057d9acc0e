"""What /proc says of processes, also to a keeper that has no descriptor left to look with.

Nothing is said by a system without /proc. Where the machine's own table of open files is full,
or its memory, ``OSError`` is raised: that is not the answer that a process is gone.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from .spares import Spares
from .system import SHORTAGES, is_subreaper

__all__ = [
    "StartTicks",
    "environment",
    "hold_reserve",
    "is_dead",
    "own_children",
    "parent_and_start",
    "parent_of",
    "processes",
    "start_ticks",
    "status_of_zombie",
]

_PROC = "/proc"
_READ_BYTES = 64 * 1024
# Where _stat has the parent, and the time of the start, which tells a process from a later one.
_PPID_FIELD = 1
_START_FIELD = 19
_EXIT_CODE_FIELD = 49

_P = ParamSpec("_P")
_T = TypeVar("_T")

_reserve = Spares(0)


def hold_reserve() -> None:
    """Hold a descriptor back from now on, for looks into /proc."""
    _reserve.hold(1)


def processes() -> list[int]:
    """Return the ids of all processes. Raises ``OSError``."""
    names = _with_reserve(os.listdir, _PROC)
    return [int(name) for name in names if name.isdecimal()]


def environment(pid: int) -> list[bytes]:
    """Return a process's environment when it was started, empty where it may not be seen.

    Raises ``OSError``.
    """
    return (_read(f"{_PROC}/{pid}/environ") or b"").split(b"\0")


def own_children() -> set[int] | None:
    """Return this process's children: what its first thread has made, and has been given.

    That is what its children's children become that lose their parent. ``None`` where that is not
    so, or cannot be known. One may be left out if another is reaped meanwhile by that thread, which
    does so with a child that was never a program (``fs/proc/array.c``, ``get_children_pid``).
    Raises ``OSError``.
    """
    if not is_subreaper():
        return None
    pid = os.getpid()
    data = _read(f"{_PROC}/{pid}/task/{pid}/children")
    return None if data is None else set(map(int, data.split()))


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 where that is not known."""
    try:
        return parent_and_start(pid)[1]
    except OSError:
        return 0


class StartTicks:
    """When processes started that were made a moment ago, mostly without a look into /proc.

    If the clock was in the same tick before and after, a process was made in that: /proc has whole
    ticks of the same clock (``fs/proc/array.c``, ``do_task_stat``). It is asked where that is not
    so, and for the first ones, whether it is this clock that it tells.
    """

    _ENOUGH = 8

    def __init__(self) -> None:
        self._tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
        self._agreed = 0
        self._has_differed = False

    def of(self, pid: int, made_between_ns: tuple[int, int]) -> int:
        """Return what :func:`start_ticks` does."""
        first, last = (at // self._tick_ns for at in made_between_ns)
        if first == last and self._agreed >= self._ENOUGH and not self._has_differed:
            return first
        ticks = start_ticks(pid)
        if first == last and ticks:  # else there was nothing to look with
            self._agreed += 1
            self._has_differed |= ticks != first
        return ticks


def parent_and_start(pid: int) -> tuple[int, int]:
    """Return a process's parent and the ticks of its start; zeros where there is none.

    Raises ``OSError``.
    """
    fields = _stat(pid)
    return (int(fields[_PPID_FIELD]), int(fields[_START_FIELD])) if fields else (0, 0)


def parent_of(pid: int) -> int | None:
    """Return the parent of a process; ``None`` where there is no such process.

    Raises ``OSError``.
    """
    fields = _stat(pid)
    return int(fields[_PPID_FIELD]) if fields else None


def is_dead(pid: int) -> bool:
    """Whether there is no such process, or only its exit status is left of it.

    Raises ``OSError``.
    """
    fields = _stat(pid)
    return not fields or fields[0] in (b"Z", b"X")


def status_of_zombie(pid: int, ticks: int) -> int | None:
    """Return the wait status of a process that has exited and was not reaped, else ``None``.

    ``None`` too where that cannot be seen. ``ticks`` is its start. The kernel says 0 to whoever
    may not know, so a 0 counts from a process of this very user only.
    """
    try:
        return _status_of_zombie(pid, ticks)
    except OSError:
        return None


def _status_of_zombie(pid: int, ticks: int) -> int | None:
    fields = _stat(pid)
    if not fields or fields[0] not in (b"Z", b"X") or len(fields) <= _EXIT_CODE_FIELD:
        return None
    if int(fields[_START_FIELD]) != ticks:
        return None
    status = int(fields[_EXIT_CODE_FIELD])
    if status != 0:
        return status
    text = _read(f"{_PROC}/{pid}/status")
    if text is None:
        return None
    lines = dict(line.split(b":", 1) for line in text.splitlines() if b":" in line)
    own = {b"Uid": os.geteuid(), b"Gid": os.getegid()}
    same = all({int(word) for word in lines[name].split()} == {own[name]} for name in own)
    return 0 if same else None


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat after the program's name, the state first.

    Empty where there is no such process. See proc(5).
    """
    return (_read(f"{_PROC}/{pid}/stat", is_one_record=True) or b"").rpartition(b")")[2].split()


def _read(path: str, *, is_one_record: bool = False) -> bytes | None:
    """Return what a file has; ``None`` where it is not there or may not be read.

    One record comes in one read, many may come in pieces. ``open`` would cost twice as much.
    """
    return _with_reserve(_read_now, path, is_one_record)


def _read_now(path: str, is_one_record: bool) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, _READ_BYTES)
            while not is_one_record and (piece := os.read(fd, _READ_BYTES)):
                data += piece
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in SHORTAGES:
            raise
        return None
    return data


def _with_reserve(look: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Look, with the descriptor that is held back if there is no other. Raises ``OSError``."""
    try:
        return look(*args, **kwargs)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        with _reserve.given_way():
            return look(*args, **kwargs)
