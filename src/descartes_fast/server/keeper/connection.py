"""The keeper's end of the socket: who may connect, and frames in and out."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

from .loop import READ, WRITE, Loop
from .protocol import BrokenFrame, FrameReader, frame

__all__ = ["Connection", "listen", "peer_may_connect"]

_READ_BYTES = 64 * 1024  # about a thousand small requests: a turn of at most some milliseconds
_CONGESTED_BYTES = 1024 * 1024  # growth waits: it can be told in fewer words later
_BLOCKED_BYTES = 8 * 1024 * 1024  # no more requests are read: their replies are what piles up


def listen(path: str) -> socket.socket:
    """Return a listening socket at ``path``, which only this user can connect to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(8)
    listener.setblocking(False)
    return listener


def peer_may_connect(peer: socket.socket) -> bool:
    """Whether the other end belongs to this user; else the directory's mode must do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid in (os.geteuid(), 0)


class Connection:
    """One server's connection. Frames are collected and written once a turn."""

    def __init__(
        self,
        loop: Loop,
        peer: socket.socket,
        on_frame: Callable[[dict[str, Any], bytes], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._socket = peer
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._unsent = bytearray()
        self._events = READ
        self.closed = False
        peer.setblocking(False)
        loop.watch(peer.fileno(), READ, self._ready)

    @property
    def is_congested(self) -> bool:
        """Whether the server is slow to take what it is told."""
        return len(self._unsent) > _CONGESTED_BYTES

    @property
    def has_unsent(self) -> bool:
        """Whether something queued was not written."""
        return bool(self._unsent) and not self.closed

    def send(self, header: Mapping[str, Any]) -> None:
        """Queue a frame; :meth:`flush` writes it."""
        if not self.closed:
            self._unsent += frame(header)

    def flush(self) -> None:
        """Write what the socket takes now."""
        if self.closed:
            return
        try:
            while self._unsent:
                count = self._socket.send(self._unsent)
                del self._unsent[:count]
        except BlockingIOError:
            pass
        except OSError:
            self._lose()
            return
        reads = 0 if len(self._unsent) > _BLOCKED_BYTES else READ
        self._wait_for(reads | (WRITE if self._unsent else 0))

    def close(self) -> None:
        """Close the socket. Twice is fine."""
        if not self.closed:
            self.closed = True
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()

    def _wait_for(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._loop.watch(self._socket.fileno(), events, self._ready)

    def _ready(self) -> None:
        self.flush()
        if self.closed or not self._events & READ:
            return
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        try:
            for header, body in self._reader.feed(data):
                self._on_frame(header, body)
        except BrokenFrame:
            self._lose()

    def _lose(self) -> None:
        if not self.closed:
            self.close()
            self._on_lost()
