"""A lock on a file, which says that something is in use and ends with whoever holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os

__all__ = ["lock_file"]


def lock_file(path: str | os.PathLike[str]) -> int:
    """Make and lock a file; return its descriptor, which holds the lock until it is closed.

    Raises ``BlockingIOError`` if somebody else holds it, and another ``OSError`` if the file
    cannot be opened (a symbolic link is not followed) or locked.
    """
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its owner may have removed the file between the open and the lock.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(path)):
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
