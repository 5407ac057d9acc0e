"""The keeper's event loop: descriptors, timers, and calls for the next turn."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import time
import traceback
from collections.abc import Callable

__all__ = ["READ", "WRITE", "Loop"]

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

_MAX_TRACEBACKS = 100


class Loop:
    """One turn waits for descriptors, then runs what is ready, due, or asked for.

    Every ready descriptor gets one callback a turn, so a busy one delays the others by
    no more than its callback takes. A callback that raises is logged and does not end
    the loop: a fault in the handling of one agent must not cost the others their parent.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._soon: list[Callable[[], None]] = []
        self._tracebacks = 0

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` in each turn in which ``fd`` is ready for ``events``."""
        try:
            self._selector.register(fd, events, callback)
        except KeyError:
            self._selector.modify(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """Watch ``fd`` no longer; one that is not watched is fine."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

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
        ready = self._selector.select(self._patience())
        for key, _ in ready:
            # An earlier callback of this turn may have closed this one.
            if self._selector.get_map().get(key.fd) is key:
                self.run(key.data)
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
        """Close the selector's own descriptor."""
        self._selector.close()

    def _patience(self) -> float | None:
        if self._soon:
            return 0.0
        if self._timers:
            return max(0.0, self._timers[0][0] - time.monotonic())
        return None
