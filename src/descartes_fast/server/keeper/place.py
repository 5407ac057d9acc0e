"""A keeper's place: its socket, its lock, and the ends that nobody has acknowledged.

All are in one folder. The lock is held for the keeper's life, so there is one keeper at
most, and a socket's file that is there when the lock is free was left by one that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["Place", "PlaceTaken"]

_BACKLOG = 8


class PlaceTaken(Exception):
    """Another keeper has this place."""


class Place:
    """The files beside a keeper's socket, and the two descriptors that hold them."""

    def __init__(self, socket_path: str, listener: socket.socket, lock_fd: int) -> None:
        self.listener = listener
        self.lock_fd = lock_fd
        self._socket_path = socket_path
        self.folder = os.path.dirname(socket_path)
        self._ends_path = os.path.join(self.folder, "ends.json")

    @classmethod
    def take(cls, socket_path: str) -> Place:
        """Lock the place and listen. Raises ``PlaceTaken`` and ``OSError``."""
        lock_path = os.path.splitext(socket_path)[0] + ".lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock_fd = os.open(lock_path, flags, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock_fd)
            raise PlaceTaken(f"another keeper holds {lock_path}") from None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket_path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(socket_path)
        os.chmod(socket_path, 0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        return cls(socket_path, listener, lock_fd)

    @classmethod
    def taken(cls, socket_path: str, listener_fd: int, lock_fd: int) -> Place:
        """Return the place that this process has held before it renewed itself."""
        return cls(socket_path, socket.socket(fileno=listener_fd), lock_fd)

    def leave_ends(self, ends: Iterable[Mapping[str, Any]], instance: str) -> None:
        """Leave ends for the next server, beside those that are there. Raises ``OSError``."""
        found = {end["agent"]: end for end in _ends_in(self._ends_path)}
        found.update({end["agent"]: dict(end) for end in ends})
        if not found:
            return
        text = json.dumps({"instance": instance, "ends": list(found.values())})
        new_path = self._ends_path + ".new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(new_path, flags, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new_path, self._ends_path)
        folder = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def leave(self) -> None:
        """Remove the socket's file and let go of the lock."""
        self.listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._socket_path)
        os.close(self.lock_fd)


def _ends_in(path: str) -> list[dict[str, Any]]:
    try:
        with open(path) as file:
            ends: list[dict[str, Any]] = json.load(file)["ends"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return ends
