"""Requests from the router to the dispatcher, replies back; slow ones beside each other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from .access import LOCAL
from .dispatch import Dispatcher
from .envelope import Envelope
from .status_replies import StatusReplies
from .tasks import Tasks

__all__ = ["Service"]

MAX_IN_PROGRESS = 4096
MAX_IN_PROGRESS_OF_CLIENT = 1024


class Service:
    """Answers requests through ``reply``; a slow one never makes another client wait.

    At most 1,024 requests of one client and 4,096 of all are in progress at a time; what
    comes on top is refused as ``busy``, unless it can be answered at once. What is not answered
    at once is answered when the journal has what the answer tells.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        status_replies: StatusReplies,
        reply: Callable[[Envelope, bytes], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._status_replies = status_replies
        self._reply = reply
        self._tasks = Tasks()
        self._in_progress: Counter[bytes] = Counter()

    def on_request(self, envelope: Envelope, body: bytes) -> None:
        """Answer a request, now or when its answer is there."""
        known = self._status_replies.reply_to(body)
        if known is not None:
            self._reply(envelope, known)
            return
        client = envelope[0]
        room = (
            len(self._tasks) < MAX_IN_PROGRESS
            and self._in_progress[client] < MAX_IN_PROGRESS_OF_CLIENT
        )
        outcome = self._dispatcher.dispatch(body, LOCAL, room=room)
        if outcome is None:
            return
        if isinstance(outcome, bytes):
            self._reply(envelope, outcome)
        else:
            self._in_progress[client] += 1
            self._tasks.start(self._finish(envelope, outcome))

    async def join(self, timeout_secs: float) -> None:
        """Wait for what is in progress, at most ``timeout_secs``."""
        await self._tasks.join(timeout_secs)
        await self._dispatcher.committed()

    async def aclose(self) -> None:
        """Cancel what is in progress; twice is fine."""
        await self._tasks.aclose()
        await self._dispatcher.committed()

    async def _finish(self, envelope: Envelope, outcome: Coroutine[Any, Any, bytes]) -> None:
        client = envelope[0]
        try:
            self._dispatcher.then(partial(self._reply, envelope, await outcome))
        except asyncio.CancelledError:
            # Either this task is cancelled, or it waited for the reply to a repeated request
            # whose work was cancelled; there is no reply in both cases.
            pass
        finally:
            self._in_progress[client] -= 1
            if not self._in_progress[client]:
                del self._in_progress[client]
