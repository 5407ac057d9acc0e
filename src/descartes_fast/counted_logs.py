"""Following output of a server whose log sequence counts messages (Rust's).

Nothing can be filled in there: gaps are counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from ._core import LogStreamMessage, LogStreamType
from .errors import CommunicationError, DescartesError, NotFound
from .feed import Feed, Publication
from .logs import log_topics
from .requests import Requests
from .subscription import Subscription

__all__ = ["CountedLogs"]

QUEUE_LIMIT = 10_000
# How often the agent is asked whether it has ended, and how long its last output may take.
_POLL_SECS = 1.0


class CountedLogs(Subscription[LogStreamMessage]):
    """The output of one agent or all as it is published; ``dropped`` counts what is missing.

    The subscription to one agent stops when the agent has ended and nothing more comes.
    """

    def __init__(self, requests: Requests, feed: Feed, agent_id: UUID | None) -> None:
        super().__init__(limit=QUEUE_LIMIT)
        self._requests = requests
        self._feed = feed
        self._agent_id = agent_id
        self._topics = log_topics(agent_id)
        self._next: dict[tuple[UUID, LogStreamType], int] = {}
        self._received = 0

    async def start(self) -> None:
        """Subscribe. Raises ``NotFound`` for an unknown agent, and as ``Feed.open``."""
        if self._agent_id is not None:
            await self._requests.details(self._agent_id)
        self._feed.open()
        self._feed.listen(self._topics, self)
        if self._agent_id is not None:
            self._task = asyncio.create_task(
                self._watch_for_end(self._agent_id), name="descartes-counted-logs"
            )

    def published(self, messages: Sequence[Publication]) -> None:
        """Take messages from the feed."""
        if self._ended:
            return
        for message in messages:
            if isinstance(message, LogStreamMessage):
                key = (message.agent_id, message.stream_type)
                self.dropped += max(0, message.sequence - self._next.get(key, message.sequence))
                self._next[key] = message.sequence + 1
                self._received += 1
                self._put(message)

    def rejoined(self) -> None:
        """What was missed shows in the sequence."""
        self._recovered()

    def failed(self, make_error: Callable[[], DescartesError], final: bool) -> None:
        """The server is gone for now: whoever iterates must know."""
        self._trouble(make_error())
        if final:
            self._end()

    def _end(self) -> None:
        super()._end()
        self._feed.leave(self._topics, self)

    async def _watch_for_end(self, agent_id: UUID) -> None:
        over = False
        while not self._ended:
            received = self._received
            await asyncio.sleep(_POLL_SECS)
            if over and self._received == received:
                self._end()
                return
            try:
                details = await self._requests.details(agent_id)
            except NotFound:
                over = True
            except CommunicationError:
                continue
            except DescartesError as error:
                self._trouble(error)
            else:
                self._recovered()
                over = details.status.is_terminal
