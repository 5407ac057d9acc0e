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

_MOST_UNDER_WAY = 64  # what waits for the launcher need not wait here for its next turn
_SLICE_SECS = 0.003  # of one turn of the loop
_LOOK_SECS = 0.02  # what is done while the one after it takes long is noticed after that
_LONGEST_WAIT_SECS = 5.0  # for a program that is being executed, on a disk that does not answer
_KILL_SECS = 1.0  # until what was killed then is gone

Request = tuple[Connection, dict[str, Any], bytes, Descriptors]


class Starts:
    """Holds launches, and what concerns an agent whose launch is held, in their order.

    ``begin`` prepares a launch for ``launcher``, or has refused it if it returns nothing;
    ``finish`` takes up each that is done, and ``answer`` answers those that were taken up;
    ``serve`` does other requests, and ``abandon`` ends an agent that nobody waits for any more.
    """

    def __init__(
        self,
        loop: Loop,
        launcher: Launcher,
        *,
        begin: Callable[[Request], Start | None],
        finish: Callable[[Request, Start], None],
        answer: Callable[[], None],
        serve: Callable[[Request], None],
        abandon: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._launcher = launcher
        self._begin = begin
        self._finish = finish
        self._answer = answer
        self._serve = serve
        self._abandon = abandon
        self._queue: deque[Request] = deque()
        self._under_way: deque[tuple[Request, Start]] = deque()
        self._behind: dict[str, list[Request]] = {}
        """What waits for the launches that are under way, by agent."""
        self._waiting: Counter[str] = Counter()
        self._given_up: set[str] = set()
        self._orphans: set[str] = set()
        """Agents whose launches took too long, and which nobody knows of any more."""
        self._is_called = False
        self._looks = False
        loop.watch(launcher.fileno(), READ, self._some_are_done)

    def __len__(self) -> int:
        return len(self._queue) + len(self._under_way)

    def takes(self, request: Request) -> bool:
        """Queue a request that has to wait; False if it is to be served at once."""
        agent_id = _agent_id(request)
        operation = request[1].get("op")
        if operation == "abandon" and agent_id in self._waiting:
            self._given_up.add(agent_id)
            self._kill(agent_id)
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
        behind = [request for requests in self._behind.values() for request in requests]
        for _, _, _, descriptors in (*self._queue, *behind):
            close_all(descriptors.values())
        self._queue.clear()
        for requests in self._behind.values():
            requests.clear()
        self.finish()
        self._waiting = Counter(self._behind.keys())
        self._given_up.clear()

    def finish(self) -> None:
        """Serve all that is queued now, and wait for what is under way.

        What takes too long is killed. What cannot be killed is abandoned when it is done: the next
        server does not see it.
        """
        if self._orphans.issuperset(self._behind) and not self._queue:
            return  # there is nothing that was not waited for
        if not self._finish_within(_LONGEST_WAIT_SECS):
            self._launcher.cancel()
            if not self._finish_within(_KILL_SECS):
                self._orphans.update(self._behind)

    def _finish_within(self, secs: float) -> bool:
        stop_at = time.monotonic() + secs
        while self._queue or self._under_way:
            left_secs = max(0.0, stop_at - time.monotonic())
            if not self._serve_next() and not self._finish_first(left_secs):
                return False
            self._answer()
        return True

    def _call_soon(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_called = False
        stop_at = time.monotonic() + _SLICE_SECS
        while self._serve_next():
            if time.monotonic() >= stop_at:
                self._call_soon()
                return

    def _some_are_done(self) -> None:
        self._launcher.hear()
        while self._finish_first():
            pass
        self._answer()
        self._go_on()

    def _look_later(self) -> None:
        if not self._looks:
            self._looks = True
            self._loop.call_later(_LOOK_SECS, self._look)

    def _look(self) -> None:
        self._looks = False
        try:
            self._some_are_done()
        finally:
            if self._under_way:
                self._look_later()

    def _finish_first(self, secs: float = 0.0) -> bool:
        """Finish the first launch if it is done, or is within some seconds; tell whether."""
        if not self._launcher.take(secs):
            return False
        request, start = self._under_way.popleft()
        agent_id = _agent_id(request)
        self._queue.extendleft(reversed(self._behind.pop(agent_id)))
        try:
            self._finish(request, start)
        finally:
            self._let_go(request)
            if agent_id in self._orphans:
                self._orphans.discard(agent_id)
                self._abandon(agent_id)
        return True

    def _serve_next(self) -> bool:
        """Serve or begin the next request; False if there is none, or it has to wait."""
        if not self._queue or len(self._under_way) == _MOST_UNDER_WAY:
            return False
        request = self._queue.popleft()
        agent_id = _agent_id(request)
        if agent_id in self._behind:
            self._behind[agent_id].append(request)
        elif request[1].get("op") != "launch":
            self._serve(request)
            self._let_go(request)
        elif (start := self._begin(request)) is None:
            self._let_go(request)
        else:
            self._under_way.append((request, start))
            self._behind[agent_id] = []
            self._launcher.begin(start.launch)
            self._look_later()
        return True

    def _kill(self, agent_id: str) -> None:
        """Kill what is being started as an agent: its exec may hang, and hold up all others."""
        for request, start in self._under_way:
            if _agent_id(request) == agent_id:
                self._launcher.kill(start.launch)

    def _let_go(self, request: Request) -> None:
        agent_id = _agent_id(request)
        self._waiting[agent_id] -= 1
        if self._waiting[agent_id] <= 0:
            del self._waiting[agent_id]
        if request[1].get("op") == "abandon":
            self._given_up.discard(agent_id)


def _agent_id(request: Request) -> str:
    """Return whom a request concerns; what is no id is refused where the request is served."""
    agent_id = request[1].get("agent", "")
    return agent_id if isinstance(agent_id, str) else ""
