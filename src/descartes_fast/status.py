"""Status subscriptions: a snapshot of how things are, then every change, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from ._core import AgentInfo, AgentStatus, StatusUpdate, StatusUpdateType
from ._core.told import Told, seq_of
from .errors import DescartesError, NotFound
from .feed import STATUS_PREFIX, Feed, Publication
from .requests import AgentDetails, Requests
from .subscription import Subscription

__all__ = ["PolledStatus", "StatusSubscription"]

QUEUE_LIMIT = 10_000
# How many agents are looked up at once while a snapshot is taken.
_LOOKUPS_IN_FLIGHT = 64
_RETRY_SECS = 1.0
_POLL_SECS = 1.0

_UPDATE_TYPES = {
    AgentStatus.COMPLETED: StatusUpdateType.COMPLETED,
    AgentStatus.FAILED: StatusUpdateType.ERROR,
    AgentStatus.TERMINATED: StatusUpdateType.TERMINATED,
}


class StatusSubscription(Subscription[StatusUpdate]):
    """The status of one agent or all, from a server that publishes it.

    Begins with a snapshot (updates with ``data["snapshot"]``), and takes a new one when
    updates may have been missed: after a reconnect, and after the queue overflowed. An agent
    that had not ended and is not among the new ones any more is told as ``terminated``,
    with ``data["gone"]``. The subscription to one agent stops after the update that says
    how it ended.
    """

    def __init__(self, requests: Requests, feed: Feed, agent_id: UUID | None) -> None:
        super().__init__(limit=QUEUE_LIMIT)
        self._requests = requests
        self._feed = feed
        self._agent_id = agent_id
        self._topic = STATUS_PREFIX + (str(agent_id).encode() if agent_id else b"")
        self._buffer: list[StatusUpdate] | None = None
        self._told = Told()
        self._stale = asyncio.Event()

    async def start(self) -> None:
        """Subscribe and take the first snapshot. Raises ``NotFound`` for an unknown agent."""
        self._feed.listen([self._topic], self)
        try:
            await self._take_snapshot()
        except BaseException:
            await self.aclose()
            raise
        if not self._ended:
            self._task = asyncio.create_task(self._keep_fresh(), name="descartes-status")

    def published(self, messages: Sequence[Publication]) -> None:
        """Take updates from the feed: now, or behind the snapshot being taken."""
        if self._ended:
            return
        if self._buffer is None:
            self._deliver(messages)
            return
        self._buffer.extend(update for update in messages if isinstance(update, StatusUpdate))
        if len(self._buffer) > self._limit:
            self.dropped += len(self._buffer)
            self._buffer.clear()
            self._stale.set()

    def rejoined(self) -> None:
        """Updates may have been missed."""
        self._stale.set()

    def failed(self, make_error: Callable[[], DescartesError], final: bool) -> None:
        """The server is gone for now: whoever iterates must know."""
        self._trouble(make_error())
        if final:
            self._end()
        self._stale.set()

    def _end(self) -> None:
        super()._end()
        self._feed.leave([self._topic], self)
        self._stale.set()

    def _overflow(self, entry: StatusUpdate) -> None:
        super()._overflow(entry)
        self._stale.set()

    async def _keep_fresh(self) -> None:
        """Take a new snapshot whenever updates may have been missed and there is room."""
        while not self._ended:
            await self._stale.wait()
            self._stale.clear()
            if self._ended:
                return
            if len(self._entries) > self._limit // 2:
                self._stale.set()
                await asyncio.sleep(_RETRY_SECS)
                continue
            try:
                await self._take_snapshot()
                self._recovered()
            except NotFound as error:
                self._put(error)
                self._end()
            except DescartesError as error:
                self._trouble(error)
                self._stale.set()
                await asyncio.sleep(_RETRY_SECS)

    async def _take_snapshot(self) -> None:
        """Ask how things are, and go on from there without a gap and without a repeat.

        Updates are held back from before the question until after the answer; an agent
        that had any meanwhile is asked for by itself, because only that answer has the
        ``seq`` that tells which of them are news. So is one that has ended since it was told of
        last: only that answer says how.
        """
        buffer: list[StatusUpdate] = []
        self._buffer = buffer
        try:
            await self._feed.synced()
            if self._agent_id is not None:
                found = [await self._requests.details(self._agent_id)]
                infos: list[AgentInfo] = []
                known = {self._agent_id}
            else:
                infos = await self._requests.list(None, None)
                await self._feed.synced()
                known = {info.id for info in infos}
                changed = {update.agent_id for update in buffer if seq_of(update)} & known
                ended = {info.id for info in infos if info.status.is_terminal}
                ended &= self._told.active()
                found = await _look_up(self._requests, changed | ended)
        finally:
            self._buffer = None
        exact = {details.agent_id: details for details in found}
        self._told.begin({agent_id: details.seq for agent_id, details in exact.items()})
        for details in found:
            self._enter(_from_details(details))
        for info in infos:
            if info.id not in exact:
                self._enter(_from_info(info))
        for agent_id in self._told.active() - known - {update.agent_id for update in buffer}:
            self._enter(_gone(agent_id))
        self._deliver(buffer)

    def _enter(self, update: StatusUpdate) -> None:
        """Add an entry of a snapshot: past the limit, for it replaces what was lost."""
        self._entries.append(update)
        self._wake()
        self._told.tell(update)
        if self._agent_id is not None and _is_last(update):
            self._end()

    def _deliver(self, messages: Sequence[Publication]) -> None:
        news = self._told.news(messages)
        if self._agent_id is None:
            self._put_all(news)
            return
        for update in news:
            self._put(update)
            if _is_last(update):
                self._end()


class PolledStatus(Subscription[StatusUpdate]):
    """The status of one agent or all, from a server that publishes none (Rust's): asked for."""

    def __init__(self, requests: Requests, agent_id: UUID | None) -> None:
        super().__init__(limit=QUEUE_LIMIT)
        self._requests = requests
        self._agent_id = agent_id
        self._known: dict[UUID, AgentStatus] = {}

    async def start(self) -> None:
        """Take the first snapshot. Raises ``NotFound`` for an unknown agent."""
        await self._look()
        if not self._ended:
            self._task = asyncio.create_task(self._poll(), name="descartes-status-poll")

    async def _poll(self) -> None:
        while not self._ended:
            await asyncio.sleep(_POLL_SECS)
            try:
                await self._look()
                self._recovered()
            except NotFound as error:
                self._put(error)
                self._end()
            except DescartesError as error:
                self._trouble(error)

    async def _look(self) -> None:
        first = self._task is None
        if self._agent_id is not None:
            updates = [_from_details(await self._requests.details(self._agent_id))]
        else:
            updates = [_from_info(info) for info in await self._requests.list(None, None)]
        for update in updates:
            status = update.status
            if status is None or self._known.get(update.agent_id) == status:
                continue
            self._known[update.agent_id] = status
            self._put(update if first else _change(update))
            if self._agent_id is not None and status.is_terminal:
                self._end()
        listed = {update.agent_id for update in updates}
        for agent_id in self._known.keys() - listed:
            if not self._known.pop(agent_id).is_terminal:
                self._put(_change(_gone(agent_id)))


async def _look_up(requests: Requests, agent_ids: Iterable[UUID]) -> list[AgentDetails]:
    """Return the details of many agents, without those the server no longer has."""
    found: list[AgentDetails] = []
    left = iter(agent_ids)

    async def work() -> None:
        for agent_id in left:
            with contextlib.suppress(NotFound):
                found.append(await requests.details(agent_id))

    await asyncio.gather(*(work() for _ in range(_LOOKUPS_IN_FLIGHT)))
    return found


def _is_last(update: StatusUpdate) -> bool:
    """Whether an update says how its agent ended."""
    return update.status is not None and update.status.is_terminal


def _from_info(info: AgentInfo) -> StatusUpdate:
    return _entry(info.id, info.status, {"snapshot": True})


def _from_details(details: AgentDetails) -> StatusUpdate:
    names = ("seq", "pid", "exit_code", "signal", "stdout_bytes", "stderr_bytes")
    known = {name: details.data[name] for name in names if name in details.data}
    return _entry(details.agent_id, details.status, {"snapshot": True, **known})


def _gone(agent_id: UUID) -> StatusUpdate:
    """Return the entry of an agent that the server no longer knows: it cannot be running."""
    return StatusUpdate(
        agent_id=agent_id,
        update_type=StatusUpdateType.TERMINATED,
        status=AgentStatus.TERMINATED,
        message="the server no longer knows this agent",
        data={"snapshot": True, "gone": True},
    )


def _entry(agent_id: UUID, status: AgentStatus, data: dict[str, Any]) -> StatusUpdate:
    kind = _UPDATE_TYPES.get(status, StatusUpdateType.STATUS_CHANGED)
    return StatusUpdate(agent_id=agent_id, update_type=kind, status=status, data=data)


def _change(update: StatusUpdate) -> StatusUpdate:
    """Return an update found by asking again: news, no snapshot."""
    data = {name: value for name, value in update.data.items() if name != "snapshot"}
    return StatusUpdate(
        agent_id=update.agent_id,
        update_type=update.update_type,
        status=update.status,
        message=update.message,
        data=data or None,
    )
