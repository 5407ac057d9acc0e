"""The queue of launches: a few of them under way at a time, and the loop goes on meanwhile."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from .connection import Connection, Descriptors
from .launcher import Launcher
from .loop import READ, Loop
from .passing import close_all
from .start import Start

__all__ = ["Request", "Starts"]

_MOST_UNDER_WAY = 32  # what waits for the launcher need not wait here for its next turn
_SLICE_SECS = 0.003  # of one turn of the loop

Request = tuple[Connection, dict[str, Any], bytes, Descriptors]


class Starts:
    """Holds launches, and what concerns an agent whose launch is held, in their order.

    ``begin`` prepares a launch for ``launcher``, or has refused it if it returns nothing;
    ``finish`` answers it when it is done; ``serve`` does other requests.
    """

    def __init__(
        self,
        loop: Loop,
        launcher: Launcher,
        begin: Callable[[Request], Start | None],
        finish: Callable[[Request, Start], None],
        serve: Callable[[Request], None],
    ) -> None:
        self._loop = loop
        self._launcher = launcher
        self._begin = begin
        self._finish = finish
        self._serve = serve
        self._queue: deque[Request] = deque()
        self._under_way: deque[tuple[Request, Start]] = deque()
        self._starting: set[str] = set()
        """The agents whose launches are under way."""
        self._waiting: Counter[str] = Counter()
        self._given_up: set[str] = set()
        self._is_called = False
        if launcher.fileno() >= 0:
            loop.watch(launcher.fileno(), READ, self._some_are_done)

    def __len__(self) -> int:
        return len(self._queue) + len(self._under_way)

    def takes(self, request: Request) -> bool:
        """Queue a request that has to wait; False if it is to be served at once."""
        agent_id = _agent_id(request)
        operation = request[1].get("op")
        if operation == "abandon" and agent_id in self._waiting:
            self._given_up.add(agent_id)
        if operation != "launch" and agent_id not in self._waiting:
            return False
        self._waiting[agent_id] += 1
        self._queue.append(request)
        self._call_soon()
        return True

    def was_given_up(self, agent_id: str) -> bool:
        """Whether a launch was abandoned before its turn came."""
        return agent_id in self._given_up

    def drop(self) -> None:
        """Forget what is queued: whoever asked for it is gone. What is under way is finished."""
        while self._queue:
            close_all(self._queue.popleft()[3].values())
        self.finish()
        self._waiting.clear()
        self._given_up.clear()

    def finish(self) -> None:
        """Serve all that is queued now, and wait for what is under way."""
        while self._queue or self._under_way:
            self._launcher.wait()
            self._finish_done()
            self._serve_next()

    def _call_soon(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._go_on_soon)

    def _go_on_soon(self) -> None:
        self._is_called = False
        self._go_on()

    def _some_are_done(self) -> None:
        self._finish_done()
        self._go_on()

    def _go_on(self) -> None:
        stop_at = time.monotonic() + _SLICE_SECS
        while self._serve_next():
            if self._launcher.fileno() < 0:
                self._finish_done()
            if time.monotonic() >= stop_at:
                self._call_soon()
                return

    def _finish_done(self) -> None:
        for _ in range(self._launcher.take_done()):
            request, start = self._under_way.popleft()
            self._starting.discard(_agent_id(request))
            self._finish(request, start)
            self._let_go(request)

    def _serve_next(self) -> bool:
        """Serve or begin the next request; False if there is none, or it has to wait."""
        if not self._queue or len(self._under_way) == _MOST_UNDER_WAY:
            return False
        request = self._queue[0]
        agent_id = _agent_id(request)
        if agent_id in self._starting:
            return False
        self._queue.popleft()
        if request[1].get("op") != "launch":
            self._serve(request)
        elif (start := self._begin(request)) is not None:
            self._under_way.append((request, start))
            self._starting.add(agent_id)
            self._launcher.begin(start.launch)
            return True
        self._let_go(request)
        return True

    def _let_go(self, request: Request) -> None:
        agent_id = _agent_id(request)
        self._waiting[agent_id] -= 1
        if not self._waiting[agent_id]:
            del self._waiting[agent_id]
        if request[1].get("op") == "abandon":
            self._given_up.discard(agent_id)


def _agent_id(request: Request) -> str:
    """Return whom a request concerns; what is no id is refused where the request is served."""
    agent_id = request[1].get("agent", "")
    return agent_id if isinstance(agent_id, str) else ""
