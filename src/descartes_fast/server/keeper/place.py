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

_BACKLOG = 128  # a server must find room beside whoever else connects


class PlaceTaken(Exception):
    """Another keeper has this place."""


class Place:
    """The files beside a keeper's socket, and the two descriptors that hold them."""

    def __init__(self, socket_path: str, listener: socket.socket, lock_fd: int) -> None:
        self.listener = listener
        self.lock_fd = lock_fd
        self._socket_path = socket_path
        self._identity = _identity(socket_path)
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
        return cls(socket_path, _listen(socket_path), lock_fd)

    @classmethod
    def taken(cls, socket_path: str, listener_fd: int, lock_fd: int) -> Place:
        """Return the place that this process has held before it renewed itself."""
        return cls(socket_path, socket.socket(fileno=listener_fd), lock_fd)

    def can_be_found(self) -> bool:
        """Whether the socket's file is the one that was made for the listener."""
        return self._identity is not None and _identity(self._socket_path) == self._identity

    def listen_again(self) -> None:
        """Listen at the same path with another socket, whose file was gone. Raises ``OSError``."""
        listener = _listen(self._socket_path)
        self.listener.close()
        self.listener = listener
        self._identity = _identity(self._socket_path)

    def leave_ends(self, ends: Iterable[Mapping[str, Any]]) -> None:
        """Leave ends for the next server, beside those that are there. Raises ``OSError``."""
        new = {end["agent"]: dict(end) for end in ends}
        if not new:
            return
        text = json.dumps({"ends": list({**self._ends_left(), **new}.values())})
        new_path = self._ends_path + ".new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with open(os.open(new_path, flags, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.rename(new_path, self._ends_path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(new_path)
            raise
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

    def _ends_left(self) -> dict[str, Any]:
        """Return by agent what is there; what cannot be understood is set aside or skipped."""
        try:
            with open(self._ends_path, encoding="utf-8") as file:
                ends = list(json.load(file)["ends"])
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError):
            with contextlib.suppress(OSError):
                os.rename(self._ends_path, self._ends_path + ".broken")
            return {}
        return {end["agent"]: end for end in ends if _is_end(end)}


def _is_end(end: Any) -> bool:
    return isinstance(end, dict) and isinstance(end.get("agent"), str)


def _listen(socket_path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket_path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(socket_path)
        os.chmod(socket_path, 0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from another of its name; ``None`` where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
