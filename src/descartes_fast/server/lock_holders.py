"""Who holds a lock on a file, without taking it."""

from __future__ import annotations

import contextlib
import fcntl
import os

__all__ = ["UNKNOWN_PROCESS", "lock_holder"]

UNKNOWN_PROCESS = 0
"""Somebody holds the lock, and this system does not tell who."""


def lock_holder(path: str | os.PathLike[str]) -> int | None:
    """Return the process that holds the ``flock`` on a file, or ``None`` if nobody does.

    Linux tells it in ``/proc/locks``. Elsewhere the lock is taken, shared and for an instant, to
    find out: who starts in that instant finds it held.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        with contextlib.suppress(OSError):
            return _told_holder(os.fstat(descriptor).st_ino, os.fspath(path))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return UNKNOWN_PROCESS
        return None
    finally:
        os.close(descriptor)


def _told_holder(inode: int, path: str) -> int | None:
    """Return the holder as ``/proc/locks`` tells it; the number of a file's device may differ."""
    real = os.path.realpath(path)
    with open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            # 1: FLOCK  ADVISORY  WRITE 708 00:13:1089 0 EOF
            words = line.split()
            if len(words) < 6 or words[1] != "FLOCK" or not words[5].endswith(f":{inode}"):
                continue
            pid = int(words[4])
            if real in _open_files(pid):
                return pid
    return None


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found
