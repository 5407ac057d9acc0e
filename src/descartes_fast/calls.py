"""Requests in flight: request id -> future, with its deadline.

One timer serves all calls: it is set for the earliest deadline and looks at every call
when it fires. Most calls are answered and leave no trace, so nothing is paid for a
deadline that is never reached, neither a task nor a timer of its own.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from .errors import UsageError
from .profile import RequestMemory

__all__ = ["Call", "PendingCalls", "checked_timeout"]

# The timer fires at most this often, however many different deadlines there are.
_TIMER_RESOLUTION_SECS = 0.01
# uvloop refuses timers of years; a longer wait is a chain of these.
_TIMER_LIMIT_SECS = 3600.0


class Call:
    """One request in flight: its bytes, its future, and whether it may be sent twice."""

    __slots__ = (
        "body",
        "deadline",
        "future",
        "repeatable",
        "request_id",
        "sent_to",
        "timeout_secs",
    )

    def __init__(
        self,
        request_id: str,
        body: bytes,
        future: asyncio.Future[Any],
        timeout_secs: float,
        deadline: float,
        repeatable: bool,
    ) -> None:
        self.request_id = request_id
        self.body = body
        self.future = future
        self.timeout_secs = timeout_secs
        self.deadline = deadline
        self.repeatable = repeatable
        self.sent_to: RequestMemory | None = None
        """Who knows it by now; ``None`` while it waits to be sent."""

    @property
    def in_doubt(self) -> bool:
        """Whether it may have changed something on the server without an answer."""
        return self.sent_to is not None and not self.repeatable


class PendingCalls:
    """The calls of one client, by request id. ``late_replies`` counts answers nobody waits for.

    ``unanswered`` makes the error of a call whose time is up.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, unanswered: Callable[[Call], Exception]
    ) -> None:
        self.late_replies = 0
        self._loop = loop
        self._unanswered = unanswered
        self._calls: dict[str, Call] = {}
        self._prefix = secrets.token_hex(8)
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        """Go through the calls in the order in which they were made; they may end meanwhile."""
        return iter(list(self._calls.values()))

    def new_id(self) -> str:
        """Return a request id that no other client and no earlier call has used."""
        self._number += 1
        return f"{self._prefix}-{self._number}"

    def open(self, request_id: str, body: bytes, timeout_secs: float, repeatable: bool) -> Call:
        """Note a call. Raises ``UsageError`` if its request id is in flight already."""
        if request_id in self._calls:
            raise UsageError(f"request id {request_id!r} is in flight already")
        deadline = self._loop.time() + timeout_secs
        future = self._loop.create_future()
        call = Call(request_id, body, future, timeout_secs, deadline, repeatable)
        self._calls[request_id] = call
        if deadline < self._timer_at:
            self._arm(deadline)
        return call

    def find(self, request_id: str) -> Call | None:
        """Return the call in flight under this id."""
        return self._calls.get(request_id)

    def forget(self, call: Call) -> None:
        """Drop a call, answered or not; an answer that comes now is late."""
        # Another may have its request id by now: it is free as soon as the answer is there.
        if self._calls.get(call.request_id) is call:
            del self._calls[call.request_id]

    def answer(self, request_id: str, message: Any) -> None:
        """Give a call its answer; one that nobody waits for is counted and dropped."""
        call = self._calls.pop(request_id, None)
        if call is None or call.future.done():
            self.late_replies += 1
        else:
            call.future.set_result(message)

    def fail(self, call: Call, error: Exception) -> None:
        """Make a call raise ``error``."""
        self.forget(call)
        if not call.future.done():
            call.future.set_exception(error)

    def fail_all(self, make_error: Callable[[Call], Exception]) -> None:
        """Make every call raise an error of its own."""
        for call in self:
            self.fail(call, make_error(call))

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = math.inf

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = self._loop.time()
        self._timer_at = min(max(when, now + _TIMER_RESOLUTION_SECS), now + _TIMER_LIMIT_SECS)
        self._timer = self._loop.call_at(self._timer_at, self._let_answers_in)

    def _let_answers_in(self) -> None:
        """Time is up for a call; but its answer may be there, unread.

        After the loop was held up, uvloop runs timers before it looks at sockets.
        """
        self._timer = self._loop.call_later(_TIMER_RESOLUTION_SECS, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        now = self._loop.time()
        earliest = math.inf
        for call in self:
            if call.deadline <= now:
                self.fail(call, self._unanswered(call))
            elif call.deadline < earliest:
                earliest = call.deadline
        if earliest < math.inf:
            self._arm(earliest)


def checked_timeout(timeout_secs: float) -> float:
    """Return a timeout as it is. Raises ``UsageError`` unless it is a number above zero."""
    if (
        isinstance(timeout_secs, bool)
        or not isinstance(timeout_secs, (int, float))
        or not timeout_secs > 0
    ):
        raise UsageError(f"timeout_secs must be a number above zero, not {timeout_secs!r}")
    return timeout_secs
