"""The queue of launches: some milliseconds of starting processes, then the loop goes on."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from .connection import Connection, Descriptors
from .loop import Loop
from .passing import close_all

__all__ = ["Request", "Starts"]

_SLICE_SECS = 0.003  # of starting processes in one turn; one takes about 0.6 ms

Request = tuple[Connection, dict[str, Any], bytes, Descriptors]


class Starts:
    """Holds launches, and what concerns an agent whose launch is held, in their order."""

    def __init__(self, loop: Loop, serve: Callable[[Request], None]) -> None:
        self._loop = loop
        self._serve = serve
        self._queue: deque[Request] = deque()
        self._waiting: Counter[str] = Counter()
        self._given_up: set[str] = set()
        self._is_running = False

    def __len__(self) -> int:
        return len(self._queue)

    def takes(self, request: Request) -> bool:
        """Queue a request that has to wait; False if it is to be served at once."""
        header = request[1]
        agent_id = header.get("agent", "")
        if not isinstance(agent_id, str):
            return False  # of no agent: refused where it is served
        if header.get("op") == "abandon" and agent_id in self._waiting:
            self._given_up.add(agent_id)
        if header.get("op") != "launch" and agent_id not in self._waiting:
            return False
        self._waiting[agent_id] += 1
        self._queue.append(request)
        if not self._is_running:
            self._is_running = True
            self._loop.call_soon(self._serve_some)
        return True

    def was_given_up(self, agent_id: str) -> bool:
        """Whether a launch was abandoned before its turn came."""
        return agent_id in self._given_up

    def drop(self) -> None:
        """Forget what is queued: whoever asked for it is gone."""
        while self._queue:
            close_all(self._queue.popleft()[3].values())
        self._waiting.clear()
        self._given_up.clear()

    def finish(self) -> None:
        """Serve all that is queued now."""
        while self._queue:
            self._serve_next()

    def _serve_some(self) -> None:
        stop_at = time.monotonic() + _SLICE_SECS
        while self._queue and time.monotonic() < stop_at:
            self._serve_next()
        self._is_running = bool(self._queue)
        if self._queue:
            self._loop.call_soon(self._serve_some)

    def _serve_next(self) -> None:
        request = self._queue.popleft()
        header = request[1]
        agent_id = header.get("agent", "")
        self._waiting[agent_id] -= 1
        if not self._waiting[agent_id]:
            del self._waiting[agent_id]
        self._serve(request)
        if header["op"] == "abandon":
            self._given_up.discard(agent_id)
