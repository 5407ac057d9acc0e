"""Waiting for an agent's end: told by the server, asked only where the telling may fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from uuid import UUID

from ._core import AgentInfo, StatusUpdate
from .errors import AgentTimeout, DescartesError
from .feed import STATUS_PREFIX, Feed, Publication
from .requests import AgentDetails, Requests
from .runner import AgentExit
from .telling import Telling

__all__ = ["wait_for_end"]

# With a feed that works this only covers an update that was lost.
_RECHECK_SECS = 15.0
_FIRST_POLL_SECS = 0.1
_LONGEST_POLL_SECS = 2.0


class _EndListener:
    """Wakes a waiter when an agent's last update comes, or when it may have been missed."""

    def __init__(self, feed: Feed | None) -> None:
        self.news = asyncio.Event()
        self.telling = Telling([feed] if feed is not None else [], self.news.set)

    def published(self, messages: Sequence[Publication]) -> None:
        for message in messages:
            status = message.status if isinstance(message, StatusUpdate) else None
            if status is not None and status.is_terminal:
                self.news.set()

    def rejoined(self) -> None:
        self.telling.ask()

    def failed(self, make_error: Callable[[], DescartesError], final: bool) -> None:
        self.telling.stop()
        self.news.set()  # if the server is gone, the next question raises it


async def wait_for_end(
    requests: Requests, feed: Feed | None, agent_id: UUID, timeout_secs: float | None
) -> AgentExit:
    """Wait until an agent has ended and return how.

    Without a ``feed`` (the server publishes no status), and while it does not work, the
    agent's state is asked for, ever more slowly. Raises ``NotFound`` if the server does not
    know the agent, ``AgentTimeout``.
    """
    listener = _EndListener(feed)
    topics = [STATUS_PREFIX + str(agent_id).encode()]
    if feed is not None:
        feed.listen(topics, listener)
    try:
        async with asyncio.timeout(timeout_secs):
            if feed is not None:
                listener.telling.ask()
                await listener.telling.settle()
            details = await _ended(requests, listener, agent_id)
            return AgentExit(
                id=agent_id,
                status=details.status,
                exit_code=details.exit_code,
                signal=details.signal,
                info=await _info(requests, details),
            )
    except TimeoutError as error:
        if isinstance(error, AgentTimeout):
            raise
        raise AgentTimeout(
            f"agent {agent_id} has not ended within {timeout_secs:g} s", agent_id=str(agent_id)
        ) from None
    finally:
        listener.telling.stop()
        if feed is not None:
            feed.leave(topics, listener)


async def _ended(requests: Requests, listener: _EndListener, agent_id: UUID) -> AgentDetails:
    poll_secs = _FIRST_POLL_SECS
    while True:
        listener.news.clear()
        with contextlib.suppress(AgentTimeout):  # one lost answer is no reason to give up
            details = await requests.details(agent_id, info=True)
            if details.status.is_terminal:
                return details
        interval_secs = _RECHECK_SECS if listener.telling.reliable else poll_secs
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval_secs):
                await listener.news.wait()
        poll_secs = min(poll_secs * 1.5, _LONGEST_POLL_SECS)


async def _info(requests: Requests, details: AgentDetails) -> AgentInfo | None:
    if details.info is not None:
        return details.info
    infos = await requests.list(None, None)
    return next((info for info in infos if info.id == details.agent_id), None)
