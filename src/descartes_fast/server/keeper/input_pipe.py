"""An agent's stdin: what its pipe takes at once, and a bounded buffer for the rest."""

from __future__ import annotations

import os
from collections import OrderedDict

__all__ = ["BUFFER_BYTES", "InputClosed", "InputFull", "InputPipe"]

BUFFER_BYTES = 1024 * 1024
_REMEMBERED_WRITES = 256
_WRITE_BYTES = 64 * 1024


class InputClosed(Exception):
    """Nobody will read it: stdin was closed, by us or by the agent."""


class InputFull(Exception):
    """The agent does not read and the buffer has no room for all of the data."""


class InputPipe:
    """The write end of an agent's stdin.

    A write is taken whole or not at all, and a write with a key that was taken
    before is answered again instead of written again.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = bytearray()
        self._closing = False
        self._broken = False
        self._written: OrderedDict[str, int] = OrderedDict()

    @property
    def waits(self) -> bool:
        """Whether there is something left to write."""
        return bool(self._buffer) and self.fd >= 0

    def write(self, data: bytes, *, close: bool = False, key: str = "") -> int:
        """Take ``data``; return its length. ``close`` ends stdin after it.

        Raises ``InputClosed`` and ``InputFull``.
        """
        if key and key in self._written:
            return self._written[key]
        if self.fd < 0 or self._closing:
            raise InputClosed
        if len(self._buffer) + len(data) > BUFFER_BYTES:
            raise InputFull
        self.queue(data, close=close)
        if self._broken:
            raise InputClosed
        if key:
            self._written[key] = len(data)
            if len(self._written) > _REMEMBERED_WRITES:
                self._written.popitem(last=False)
        return len(data)

    def queue(self, data: bytes, *, close: bool = False) -> None:
        """Take ``data`` of any length (the agent's task, which is bounded by its message)."""
        self._buffer += data
        self._closing = self._closing or close
        self.flush()

    def flush(self) -> None:
        """Write what the pipe takes now; close it if that was the last and it is to end."""
        try:
            while self._buffer and self.fd >= 0:
                with memoryview(self._buffer) as view, view[:_WRITE_BYTES] as piece:
                    count = os.write(self.fd, piece)
                del self._buffer[:count]
        except BlockingIOError:
            return
        except OSError:  # EPIPE: the agent closed its stdin; what it did not read is void
            self._broken = self._closing = True
        if self._closing:
            self.close()

    def close(self) -> None:
        """Close the pipe and drop what was not written. Twice is fine."""
        self._buffer.clear()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
