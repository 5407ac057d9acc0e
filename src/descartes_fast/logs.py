"""Following output: what agents write, in order and without a gap.

PUB/SUB may lose messages, or bring none at all. A log message's ``sequence`` is the byte
offset of its data, so what is missing is seen, and read from the server's files. The queue
is bounded for the same reason: what finds no room in it is read later.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Sequence
from uuid import UUID

from ._core import LogStreamMessage, LogStreamType, StatusUpdate, replace
from .errors import DescartesError, NotFound, OutputGone
from .feed import STATUS_PREFIX, Feed, Publication
from .requests import AgentDetails, Requests
from .subscription import Subscription
from .telling import Telling

__all__ = ["LogFollower", "log_topics"]

# Both together bound a follower's memory.
QUEUE_LIMIT = 10_000
QUEUE_LIMIT_BYTES = 8 * 1024 * 1024
READ_BYTES = 256 * 1024
# A status update may overtake the log messages it speaks of: give them this long.
_OVERTAKING_SECS = 0.05
# Should the last publication of an agent be lost, this is when it is noticed.
_RECHECK_SECS = 15.0
# And this is how often the agent is asked where nothing is published, or nothing arrives.
_POLL_SECS = 1.0
_RETRY_SECS = 1.0
# A server that knows of bytes and cannot give them does not have them any more.
_EMPTY_READS_LIMIT = 5
_LOOKUPS_IN_FLIGHT = 64
# Agents that have ended and are done with; their stragglers must not begin anew.
_FINISHED_LIMIT = 10_000

_STREAMS = (LogStreamType.STDOUT, LogStreamType.STDERR)


def log_topics(agent_id: UUID | None) -> list[bytes]:
    """Return the topics of one agent's logs, or of all: the 16 digits an id can begin with."""
    if agent_id is not None:
        return [str(agent_id).encode()]
    return [f"{digit:x}".encode() for digit in range(16)]


class _Cursor:
    """How far one stream of one agent has been followed."""

    __slots__ = ("agent_id", "due", "end", "next", "nothing_read", "reading", "stream")

    def __init__(self, agent_id: UUID, stream: LogStreamType, start: int) -> None:
        self.agent_id = agent_id
        self.stream = stream
        self.next = start
        """The first byte that has not been queued yet."""
        self.end = start
        """The length that the stream is known to have."""
        self.due = math.inf
        """When what is missing between the two is to be read."""
        self.reading = False
        self.nothing_read = 0
        """How many reads in a row brought nothing where there should be something."""


class LogFollower(Subscription[LogStreamMessage]):
    """The output of one agent or all, each stream in order and complete.

    ``from_offset`` is where each stream begins, ``None`` is now; agents that start later
    are followed from their beginning. Output that the server no longer has raises
    ``OutputGone`` once, and the next iteration goes on behind it. The subscription to one
    agent stops after the last byte of both streams when the agent has ended.
    """

    def __init__(
        self,
        requests: Requests,
        logs: Feed,
        status: Feed,
        agent_id: UUID | None,
        from_offset: int | None,
    ) -> None:
        super().__init__(limit=QUEUE_LIMIT, on_taken=self._account)
        self._requests = requests
        self._agent_id = agent_id
        self._from_offset = from_offset
        status_topic = STATUS_PREFIX + (str(agent_id).encode() if agent_id else b"")
        self._feeds = ((logs, log_topics(agent_id)), (status, [status_topic]))
        self._loop = asyncio.get_running_loop()
        self._cursors: dict[tuple[UUID, LogStreamType], _Cursor] = {}
        self._early: dict[tuple[UUID, LogStreamType], int] = {}
        self._started = False
        self._exited: set[UUID] = set()
        self._finished: dict[UUID, None] = {}
        self._queued_bytes = 0
        self._telling = Telling([logs, status], self._recheck)
        self._recheck_at = math.inf
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Subscribe and learn where the streams are. Raises ``NotFound`` for an unknown agent."""
        for feed, topics in self._feeds:
            feed.listen(topics, self)
        try:
            self._telling.ask()
            await self._telling.settle()
            await self._refresh()
        except BaseException:
            await self.aclose()
            raise
        self._started = True
        self._early.clear()
        if not self._ended:
            self._task = asyncio.create_task(self._fill(), name="descartes-logs")

    # What the feeds tell

    def published(self, messages: Sequence[Publication]) -> None:
        """Take what a feed brings: output, or how much of it there is."""
        for message in messages:
            if self._ended:
                return
            if isinstance(message, LogStreamMessage):
                self._output(message)
            else:
                self._update(message)

    def rejoined(self) -> None:
        """Publications may have been missed."""
        self._telling.ask()
        self._recheck()

    def failed(self, make_error: Callable[[], DescartesError], final: bool) -> None:
        """Nothing is published now; what can still be asked for is, or that raises."""
        self._telling.stop()
        self._recheck()
        if final:
            self._trouble(make_error())
            self._end()

    def _recheck(self) -> None:
        self._recheck_at = 0.0
        self._news.set()

    def _output(self, message: LogStreamMessage) -> None:
        data, start = message.data, message.sequence
        end = start + len(data)
        cursor = self._cursor(message.agent_id, message.stream_type, end)
        if cursor is None or end <= cursor.next:
            return
        cursor.end = max(cursor.end, end)
        if start > cursor.next or cursor.reading or not self._has_room():
            self._read_at(cursor, self._loop.time())
            return
        if start < cursor.next:
            message = replace(message, data=data[cursor.next - start :], sequence=cursor.next)
        self._append(cursor, message, end)

    def _update(self, update: StatusUpdate) -> None:
        data = update.data if isinstance(update.data, dict) else {}
        lengths = [data.get(f"{stream.value}_bytes") for stream in _STREAMS]
        for stream, length in zip(_STREAMS, lengths, strict=True):
            if isinstance(length, int) and length > 0:
                cursor = self._cursor(update.agent_id, stream, length)
                if cursor is not None and length > cursor.end:
                    cursor.end = length
                    self._read_at(cursor, self._loop.time() + _OVERTAKING_SECS)
        if update.status is not None and update.status.is_terminal and self._started:
            self._exited.add(update.agent_id)
            self._finish(update.agent_id)

    def _cursor(self, agent_id: UUID, stream: LogStreamType, end: int) -> _Cursor | None:
        """Return a stream's cursor; an agent that is new to us is followed from its start."""
        key = (agent_id, stream)
        cursor = self._cursors.get(key)
        if cursor is None and not self._started:
            self._early[key] = max(end, self._early.get(key, 0))
        elif cursor is None and self._agent_id is None and agent_id not in self._finished:
            self._follow(agent_id, 0)
            cursor = self._cursors[key]
        return cursor

    def _follow(self, agent_id: UUID, *starts: int) -> None:
        for stream, start in zip(_STREAMS, starts if len(starts) > 1 else starts * 2, strict=True):
            key = (agent_id, stream)
            cursor = self._cursors[key] = _Cursor(agent_id, stream, start)
            cursor.end = max(start, self._early.get(key, 0))

    # The queue

    def _has_room(self) -> bool:
        return len(self._entries) < self._limit and self._queued_bytes < QUEUE_LIMIT_BYTES

    def _append(self, cursor: _Cursor, message: LogStreamMessage, end: int) -> None:
        cursor.next = end
        self._entries.append(message)
        self._queued_bytes += len(message.data)
        self._wake()
        if cursor.next >= cursor.end:
            cursor.due = math.inf
            self._finish(cursor.agent_id)

    def _account(self, entry: LogStreamMessage | Exception) -> None:
        """An entry was taken; what waits for room goes on."""
        if isinstance(entry, LogStreamMessage):
            was_full = (
                len(self._entries) + 1 >= self._limit or self._queued_bytes >= QUEUE_LIMIT_BYTES
            )
            self._queued_bytes -= len(entry.data)
            if was_full:
                self._news.set()

    def _finish(self, agent_id: UUID) -> None:
        """Forget an agent that has ended, once its last byte is queued."""
        if agent_id not in self._exited:
            return
        cursors = [self._cursors.get((agent_id, stream)) for stream in _STREAMS]
        if any(cursor is not None and cursor.next < cursor.end for cursor in cursors):
            return
        if self._agent_id is not None:
            self._end()
            return
        self._forget(agent_id)

    def _forget(self, agent_id: UUID) -> None:
        self._exited.discard(agent_id)
        for stream in _STREAMS:
            self._cursors.pop((agent_id, stream), None)
        self._finished[agent_id] = None
        if len(self._finished) > _FINISHED_LIMIT:
            del self._finished[next(iter(self._finished))]

    def _end(self) -> None:
        super()._end()
        self._telling.stop()
        for feed, topics in self._feeds:
            feed.leave(topics, self)
        self._news.set()

    # Reading what is missing

    def _read_at(self, cursor: _Cursor, when: float) -> None:
        cursor.due = min(cursor.due, when)
        self._news.set()

    async def _fill(self) -> None:
        """Read what the feeds have not brought, as there is room for it."""
        while not self._ended:
            self._news.clear()
            now = self._loop.time()
            due = min(self._cursors.values(), key=lambda cursor: cursor.due, default=None)
            try:
                if now >= self._recheck_at:
                    await self._refresh()
                elif due is not None and due.due <= now and self._has_room():
                    await self._read(due)
                else:
                    soonest = due.due if due is not None and self._has_room() else math.inf
                    await self._sleep(min(soonest, self._recheck_at) - now)
            except NotFound as error:
                self._put(error)
                if self._agent_id is not None:
                    self._end()
                elif due is not None:
                    self._forget(due.agent_id)
            except DescartesError as error:
                self._trouble(error)
                await asyncio.sleep(_RETRY_SECS)

    async def _sleep(self, secs: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(secs):
                await self._news.wait()

    async def _read(self, cursor: _Cursor) -> None:
        cursor.due = math.inf
        if cursor.next >= cursor.end:
            return
        cursor.reading = True
        try:
            chunk = await self._requests.read_at(
                cursor.agent_id, cursor.stream, cursor.next, READ_BYTES
            )
        except DescartesError:
            cursor.due = 0.0
            raise
        finally:
            cursor.reading = False
        data = chunk.data
        if chunk.offset < cursor.next:
            data = data[cursor.next - chunk.offset :]
        elif chunk.offset > cursor.next:
            self._gone(cursor, chunk.offset)
        self._recovered()
        if data:
            message = LogStreamMessage(
                agent_id=cursor.agent_id,
                stream_type=cursor.stream,
                data=data,
                sequence=cursor.next,
            )
            cursor.end = max(cursor.end, cursor.next + len(data))
            cursor.due = 0.0
            cursor.nothing_read = 0
            self._append(cursor, message, cursor.next + len(data))
        elif cursor.next < cursor.end:
            cursor.nothing_read += 1
            cursor.due = self._loop.time() + _RETRY_SECS / 10
            if cursor.nothing_read >= _EMPTY_READS_LIMIT:
                self._gone(cursor, cursor.end)
        self._finish(cursor.agent_id)

    def _gone(self, cursor: _Cursor, end: int) -> None:
        self._put(
            OutputGone(
                f"{cursor.stream.value} of agent {cursor.agent_id} from byte {cursor.next} "
                f"to byte {end} was trimmed before it was read",
                start=cursor.next,
                end=end,
                agent_id=str(cursor.agent_id),
                stream=cursor.stream.value,
            )
        )
        cursor.next = end
        cursor.end = max(cursor.end, end)
        cursor.nothing_read = 0
        cursor.due = 0.0

    async def _refresh(self) -> None:
        """Ask how long the streams are and which agents have ended."""
        told = self._telling.reliable and self._requests.profile.snapshot
        self._recheck_at = self._loop.time() + (_RECHECK_SECS if told else _POLL_SECS)
        try:
            if self._agent_id is not None:
                self._learn(await self._requests.details(self._agent_id))
            else:
                await self._refresh_all()
        except DescartesError:
            self._recheck_at = 0.0
            raise
        self._recovered()

    async def _refresh_all(self) -> None:
        infos = await self._requests.list(None, None)
        if not self._started and self._from_offset is None:
            for info in infos:
                if info.status.is_terminal:
                    self._finished[info.id] = None
        unknown = iter([info.id for info in infos if info.id not in self._finished])

        async def look_up() -> None:
            for agent_id in unknown:
                with contextlib.suppress(NotFound):
                    self._learn(await self._requests.details(agent_id))

        await asyncio.gather(*(look_up() for _ in range(_LOOKUPS_IN_FLIGHT)))
        for agent_id in {agent_id for agent_id, _ in self._cursors} - {info.id for info in infos}:
            self._forget(agent_id)

    def _learn(self, details: AgentDetails) -> None:
        agent_id = details.agent_id
        if agent_id in self._finished:
            return
        lengths = [details.length(stream) for stream in _STREAMS]
        if (agent_id, _STREAMS[0]) not in self._cursors:
            if self._started:
                self._follow(agent_id, 0)
            elif self._from_offset is not None:
                self._follow(agent_id, self._from_offset)
            else:
                self._follow(agent_id, *lengths)
        for stream, length in zip(_STREAMS, lengths, strict=True):
            cursor = self._cursors[(agent_id, stream)]
            cursor.end = max(cursor.end, length)
            if cursor.next < cursor.end:
                self._read_at(cursor, self._loop.time())
        if details.status.is_terminal:
            self._exited.add(agent_id)
            self._finish(agent_id)
