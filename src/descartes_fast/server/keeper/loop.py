"""The keeper's event loop: descriptors, timers, and calls for the next turn."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import select
import selectors
import sys
import time
import traceback
from collections.abc import Callable
from typing import Protocol

__all__ = ["READ", "WRITE", "Loop", "Poller", "SelectorPoller"]

READ = 1  # EPOLLIN
WRITE = 4  # EPOLLOUT

_MAX_TRACEBACKS = 100


class Poller(Protocol):
    """What ``select.epoll`` does; ``poll`` waits for so many seconds, ``None`` for ever."""

    def register(self, fd: int, events: int, /) -> object: ...
    def modify(self, fd: int, events: int, /) -> object: ...
    def unregister(self, fd: int, /) -> object: ...
    def poll(self, timeout: float | None, /) -> list[tuple[int, int]]: ...
    def close(self) -> None: ...


class SelectorPoller:
    """The same with what the system has instead of epoll."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fd: int, events: int, /) -> None:
        self._selector.register(fd, _for_selectors(events))

    def modify(self, fd: int, events: int, /) -> None:
        self._selector.modify(fd, _for_selectors(events))

    def unregister(self, fd: int, /) -> None:
        self._selector.unregister(fd)

    def poll(self, timeout: float | None, /) -> list[tuple[int, int]]:
        return [(key.fd, events) for key, events in self._selector.select(timeout)]

    def close(self) -> None:
        self._selector.close()


class Loop:
    """One turn waits for descriptors, then runs what is ready, due, or asked for.

    Every ready descriptor gets one callback a turn (of more than a thousand the rest in the next),
    so a busy one delays the others by no more than its callback takes. A callback that raises is
    logged and does not end the loop: a fault in the handling of one agent must not cost the others
    their parent.
    """

    def __init__(self, poller: Poller | None = None) -> None:
        self._poller = _usual_poller() if poller is None else poller
        self._watched: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._soon: list[Callable[[], None]] = []
        self._tracebacks = 0

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` in each turn in which ``fd`` is ready for ``events``."""
        if fd in self._watched:
            self._poller.modify(fd, events)
        else:
            self._poller.register(fd, events)
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Watch ``fd`` no longer; one that is not watched is fine."""
        if self._watched.pop(fd, None) is not None:
            with contextlib.suppress(OSError, KeyError):  # it was closed meanwhile
                self._poller.unregister(fd)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once in the next turn, which then does not wait."""
        self._soon.append(callback)

    def call_later(self, delay_secs: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once after ``delay_secs``."""
        self.call_at(time.monotonic() + delay_secs, callback)

    def call_at(self, due: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once at ``due`` by the monotonic clock."""
        heapq.heappush(self._timers, (due, next(self._order), callback))

    def turn(self) -> None:
        """Wait until something is to be done, and do what is."""
        watched = self._watched
        ready = [(fd, watched.get(fd)) for fd, _ in self._poller.poll(self._patience())]
        for fd, callback in ready:
            # An earlier callback of this turn may have closed this one.
            if callback is not None and watched.get(fd) is callback:
                self.run(callback)
        due = time.monotonic()
        while self._timers and self._timers[0][0] <= due:
            self.run(heapq.heappop(self._timers)[2])
        soon, self._soon = self._soon, []
        for callback in soon:
            self.run(callback)

    def run(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` now; what it raises is logged."""
        try:
            callback()
        except Exception:
            if self._tracebacks < _MAX_TRACEBACKS:
                self._tracebacks += 1
                traceback.print_exc()

    def close(self) -> None:
        """Close the poller's own descriptor."""
        self._poller.close()

    def _patience(self) -> float | None:
        if self._soon:
            return 0.0
        if self._timers:
            return max(0.0, self._timers[0][0] - time.monotonic())
        return None


def _usual_poller() -> Poller:
    # A third of what the selectors module takes, which knows more of a descriptor than is asked.
    return select.epoll() if sys.platform == "linux" else SelectorPoller()


def _for_selectors(events: int) -> int:
    reads = selectors.EVENT_READ if events & READ else 0
    return reads | (selectors.EVENT_WRITE if events & WRITE else 0)
