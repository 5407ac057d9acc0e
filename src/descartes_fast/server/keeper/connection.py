"""One connection of a server: frames and descriptors in and out."""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import passing
from .loop import READ, WRITE, Loop
from .protocol import BrokenFrame, FrameReader, frame

__all__ = ["Connection", "Descriptors"]

_READ_BYTES = 64 * 1024  # about a thousand small requests: a turn of at most some milliseconds
_CONGESTED_BYTES = 1024 * 1024  # growth waits: it can be told in fewer words later
_BLOCKED_BYTES = 8 * 1024 * 1024  # no more requests are read: their replies are what piles up
_TOO_MANY_SECS = 0.01

Descriptors = dict[str, int]
"""What came with a frame, by name. Whoever takes one out closes it; the rest is closed."""


class Connection:
    """Frames are written together: those that answer one read, and those of the rest of a turn.

    Descriptors keep their frames' order.
    """

    def __init__(
        self,
        loop: Loop,
        peer: socket.socket,
        on_frame: Callable[[Connection, dict[str, Any], bytes, Descriptors | None], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self.peer = peer
        """The socket, to see whose it is."""
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._arrivals = passing.Arrivals()
        # Pieces to be sent, each with the descriptors that go with its first byte.
        self._unsent: deque[tuple[bytearray, list[int]]] = deque()
        self._unsent_bytes = 0
        self._waits_for_rights = False
        self._events = READ
        self.closed = False
        peer.setblocking(False)
        loop.watch(peer.fileno(), READ, self._ready)

    @property
    def is_congested(self) -> bool:
        """Whether the server is slow to take what it is told."""
        return self._unsent_bytes > _CONGESTED_BYTES

    @property
    def has_unsent(self) -> bool:
        """Whether something queued was not written."""
        return bool(self._unsent) and not self.closed

    def send(self, header: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Queue a frame with duplicates of ``descriptors``; :meth:`flush` writes it.

        Where they cannot be duplicated the header's ``fds`` says that there are none.
        """
        if self.closed:
            return
        duplicates: list[int] = []
        try:
            for fd in descriptors:
                duplicates.append(os.dup(fd))
        except OSError:
            passing.close_all(duplicates)
            duplicates = []
            header = {**header, "fds": []}
        data = frame(header)
        self._unsent_bytes += len(data)
        if self._unsent and not duplicates:
            self._unsent[-1][0].extend(data)
        else:
            self._unsent.append((bytearray(data), duplicates))

    def flush(self) -> None:
        """Write what the socket takes now."""
        if self.closed or self._waits_for_rights:
            return
        try:
            while self._unsent:
                data, descriptors = self._unsent[0]
                count = passing.send(self.peer, data, descriptors)
                passing.close_all(descriptors)
                descriptors.clear()
                self._unsent_bytes -= count
                del data[:count]
                if not data:
                    self._unsent.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS:
                self._lose()
                return
            # As many descriptors are under way as this user may have open.
            self._waits_for_rights = True
            self._loop.call_later(_TOO_MANY_SECS, self._try_again)
        reads = 0 if self._unsent_bytes > _BLOCKED_BYTES else READ
        writes = WRITE if self._unsent and not self._waits_for_rights else 0
        self._wait_for(reads | writes)

    def close(self) -> None:
        """Close the socket and what was under way. Twice is fine."""
        if not self.closed:
            self.closed = True
            if self._events:
                self._loop.unwatch(self.peer.fileno())
            self.peer.close()
            self._arrivals.close()
            for _, descriptors in self._unsent:
                passing.close_all(descriptors)

    def _try_again(self) -> None:
        self._waits_for_rights = False
        self.flush()

    def _wait_for(self, events: int) -> None:
        if events != self._events:
            self._events = events
            if events:
                self._loop.watch(self.peer.fileno(), events, self._ready)
            else:
                self._loop.unwatch(self.peer.fileno())

    def _ready(self) -> None:
        self.flush()
        if self.closed or not self._events & READ:
            return
        try:
            data, batches = passing.receive(self.peer, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data, batches = b"", []
        self._arrivals.put(batches)
        if not data:
            self._lose()
            return
        try:
            for header, body in self._reader.feed(data):
                self._on_frame(self, header, body, self._arrivals.take(header))
                if self.closed:
                    return
        except BrokenFrame:
            self._lose()
        if self._unsent:
            self.flush()  # nobody need wait for what else this turn brings

    def _lose(self) -> None:
        if not self.closed:
            self.close()
            self._on_lost(self)
