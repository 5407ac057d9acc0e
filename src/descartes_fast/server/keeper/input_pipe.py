"""An agent's stdin: what its pipe takes at once, and a bounded backlog for the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .backlog import Backlog, FileBacklog, HeapBacklog, new_backlog
from .loop import WRITE, Loop

__all__ = ["BUFFER_BYTES", "InputClosed", "InputFull", "InputPipe"]

BUFFER_BYTES = 1024 * 1024
_WRITE_BYTES = 64 * 1024


class InputClosed(Exception):
    """Nobody will read it: stdin was closed, by us or by the agent."""


class InputFull(Exception):
    """The agent does not read and the backlog has no room for all of the data."""


class InputPipe:
    """The write end of an agent's stdin. A write is taken whole or not at all."""

    def __init__(self, loop: Loop, fd: int, backlog: Backlog | None = None) -> None:
        """Take the pipe's end and what an earlier keeper has left for it."""
        self.fd = fd
        self.on_closed: Callable[[], None] = _nobody_cares
        """Called when it closes by itself: after the last byte, or as nobody reads it."""
        self._loop = loop
        self._backlog = backlog
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
        return bool(self._backlog) and self.fd >= 0

    @property
    def state(self) -> str:
        """``open``; ``closing``, while what was written before is not read; ``closed``."""
        return "closed" if self.fd < 0 else "closing" if self._closing else "open"

    @property
    def backlog_fd(self) -> int:
        """The file of what is left to write; -1 where there is none."""
        return -1 if self._backlog is None else self._backlog.fd

    def write(self, data: bytes, *, close: bool = False) -> int:
        """Take ``data``; return its length. ``close`` ends stdin after it.

        Raises ``InputClosed`` and ``InputFull``.
        """
        if not self.is_open:
            raise InputClosed
        if len(self._backlog or ()) + len(data) > BUFFER_BYTES:
            raise InputFull
        self.queue(data, close=close)
        if self._broken:
            raise InputClosed
        return len(data)

    def queue(self, data: bytes, *, close: bool = False) -> None:
        """Take ``data`` of any length (the agent's task, which is bounded by its message)."""
        self._closing = self._closing or close
        rest = memoryview(data)
        if not self.waits:
            rest = rest[self._write_now(rest) :]
        if rest and not self._broken:
            if self._backlog is None:
                self._backlog = new_backlog()
            self._backlog.append(rest)
        self.flush()

    def flush(self) -> None:
        """Write what the pipe takes now, and the rest when it takes more; then perhaps close."""
        if self.fd < 0:
            return
        try:
            while self._backlog and not self._broken:
                self._backlog.move(self.fd)
        except BlockingIOError:
            self._watch()
            return
        except OSError:  # EPIPE: the agent closed its stdin; what it did not read is void
            self._broken = self._closing = True
        self._unwatch()
        if self._closing:
            self.close()
            self.on_closed()

    def close_after_backlog(self) -> None:
        """End stdin after what is left to write."""
        self._closing = True
        self.flush()

    def close(self) -> None:
        """Close the pipe and drop what was not written. Twice is fine."""
        if self._backlog is not None:
            self._backlog.close()
        if self.fd >= 0:
            # First: a duplicate elsewhere would keep a closed descriptor in the poller.
            self._unwatch()
            os.close(self.fd)
            self.fd = -1

    def saved(self) -> dict[str, Any]:
        """Return everything, for :meth:`restored`."""
        data = self._backlog.data if isinstance(self._backlog, HeapBacklog) else b""
        return {
            "fd": self.fd,
            "backlog_fd": self.backlog_fd,
            "data": bytes(data),
            "closing": self._closing,
        }

    @classmethod
    def restored(cls, loop: Loop, saved: dict[str, Any]) -> InputPipe:
        """Return the pipe that :meth:`saved` has described; it goes on with :meth:`flush`."""
        pipe = cls(loop, saved["fd"])
        pipe._closing = saved["closing"]
        if saved["backlog_fd"] >= 0:
            pipe._backlog = FileBacklog.found(saved["backlog_fd"])
        elif saved["data"]:
            pipe._backlog = HeapBacklog()
            pipe._backlog.append(memoryview(saved["data"]))
        return pipe

    def _write_now(self, data: memoryview) -> int:
        """Write what the pipe takes; return how much that was."""
        written = 0
        try:
            while written < len(data) and self.fd >= 0:
                written += os.write(self.fd, data[written : written + _WRITE_BYTES])
        except BlockingIOError:
            pass
        except OSError:
            self._broken = self._closing = True
        return written

    def _watch(self) -> None:
        if not self._watched:
            self._loop.watch(self.fd, WRITE, self.flush)
            self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._loop.unwatch(self.fd)
            self._watched = False


def _nobody_cares() -> None:
    pass
