"""An agent's stdin: what its pipe takes at once, and a bounded buffer for the rest."""

from __future__ import annotations

import os

from .loop import WRITE, Loop

__all__ = ["BUFFER_BYTES", "InputClosed", "InputFull", "InputPipe"]

BUFFER_BYTES = 1024 * 1024
_WRITE_BYTES = 64 * 1024


class InputClosed(Exception):
    """Nobody will read it: stdin was closed, by us or by the agent."""


class InputFull(Exception):
    """The agent does not read and the buffer has no room for all of the data."""


class InputPipe:
    """The write end of an agent's stdin. A write is taken whole or not at all."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self.fd = fd
        self._loop = loop
        self._buffer = bytearray()
        self._closing = False
        self._broken = False
        self._watched = False

    @property
    def is_open(self) -> bool:
        """Whether more may be written."""
        return self.fd >= 0 and not self._closing

    @property
    def waits(self) -> bool:
        """Whether there is something left to write."""
        return bool(self._buffer) and self.fd >= 0

    def write(self, data: bytes, *, close: bool = False) -> int:
        """Take ``data``; return its length. ``close`` ends stdin after it.

        Raises ``InputClosed`` and ``InputFull``.
        """
        if not self.is_open:
            raise InputClosed
        if len(self._buffer) + len(data) > BUFFER_BYTES:
            raise InputFull
        self.queue(data, close=close)
        if self._broken:
            raise InputClosed
        return len(data)

    def queue(self, data: bytes, *, close: bool = False) -> None:
        """Take ``data`` of any length (the agent's task, which is bounded by its message)."""
        self._buffer += data
        self._closing = self._closing or close
        self.flush()

    def flush(self) -> None:
        """Write what the pipe takes now, and the rest when it takes more; then perhaps close."""
        try:
            while self._buffer and self.fd >= 0:
                with memoryview(self._buffer) as view, view[:_WRITE_BYTES] as piece:
                    count = os.write(self.fd, piece)
                del self._buffer[:count]
        except BlockingIOError:
            self._watch()
            return
        except OSError:  # EPIPE: the agent closed its stdin; what it did not read is void
            self._broken = self._closing = True
        self._unwatch()
        if self._closing:
            self.close()

    def close(self) -> None:
        """Close the pipe and drop what was not written. Twice is fine."""
        self._buffer.clear()
        if self.fd >= 0:
            # First: a duplicate elsewhere would keep a closed descriptor in the selector.
            self._unwatch()
            os.close(self.fd)
            self.fd = -1

    def saved(self) -> tuple[int, bytes, bool]:
        """Return everything, for :meth:`restored`."""
        return self.fd, bytes(self._buffer), self._closing

    @classmethod
    def restored(cls, loop: Loop, fd: int, data: bytes, closing: bool) -> InputPipe:
        """Return the pipe that :meth:`saved` has described."""
        pipe = cls(loop, fd)
        if fd >= 0:
            pipe.queue(data, close=closing)
        return pipe

    def _watch(self) -> None:
        if not self._watched:
            self._loop.watch(self.fd, WRITE, self.flush)
            self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._loop.unwatch(self.fd)
            self._watched = False
