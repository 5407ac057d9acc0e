"""Following output: what agents write, in order and without a gap.

PUB/SUB may lose messages, or bring none at all. A log message's ``sequence`` is the byte
offset of its data, so what is missing is seen, and read from the server's files. The queue
is bounded for the same reason: what finds no room in it is read later.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from uuid import UUID

from ._core import LogStreamMessage, LogStreamType, StatusUpdate
from .errors import DescartesError, NotFound, OutputGone
from .feed import STATUS_PREFIX, Feed, Publication
from .log_cursor import Cursor, from_byte, held_size
from .requests import AgentDetails, OutputChunk, Requests
from .subscription import Subscription
from .telling import Telling

__all__ = ["LogFollower", "log_topics"]

# These bound a follower's memory: what waits to be taken, and what waits for a gap to be filled.
QUEUE_LIMIT = 10_000
QUEUE_LIMIT_BYTES = 8 * 1024 * 1024
HELD_LIMIT_BYTES = 4 * 1024 * 1024
# The server encodes the next while we decode one.
READ_BYTES = 256 * 1024
_READS_IN_FLIGHT = 4
_TURN_BYTES = 4 * 1024 * 1024
# A status update may overtake the log messages it speaks of, by as many as wait in the sockets:
# as long as they come, none is missing for this long.
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
        self._cursors: dict[tuple[UUID, LogStreamType], Cursor] = {}
        self._early: dict[tuple[UUID, LogStreamType], int] = {}
        self._started = False
        self._exited: set[UUID] = set()
        self._finished: dict[UUID, None] = {}
        self._queued_bytes = 0
        self._held_bytes = 0
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
        end = message.sequence + len(message.data)
        cursor = self._cursor(message.agent_id, message.stream_type, end)
        if cursor is None or end <= cursor.next:
            return
        cursor.end = max(cursor.end, end)
        if message.sequence <= cursor.next and self._has_room():
            self._append(cursor, message)
        else:
            self._hold(cursor, message)
            self._read_at(cursor)

    def _update(self, update: StatusUpdate) -> None:
        data = update.data if isinstance(update.data, dict) else {}
        lengths = [data.get(f"{stream.value}_bytes") for stream in _STREAMS]
        for stream, length in zip(_STREAMS, lengths, strict=True):
            if isinstance(length, int) and length > 0:
                cursor = self._cursor(update.agent_id, stream, length)
                if cursor is not None and length > cursor.end:
                    cursor.end = length
                    self._read_unless_published(cursor)
        if update.status is not None and update.status.is_terminal and self._started:
            self._exited.add(update.agent_id)
            self._finish(update.agent_id)

    def _cursor(self, agent_id: UUID, stream: LogStreamType, end: int) -> Cursor | None:
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
            cursor = self._cursors[key] = Cursor(agent_id, stream, start)
            cursor.end = max(start, self._early.get(key, 0))

    # The queue

    def _has_room(self) -> bool:
        return len(self._entries) < self._limit and self._queued_bytes < QUEUE_LIMIT_BYTES

    def _append(self, cursor: Cursor, message: LogStreamMessage) -> None:
        """Queue what is new of a message that no gap is before, and what was waiting for it."""
        self._enqueue(cursor, message)
        self._join(cursor)
        if cursor.next >= cursor.end:
            cursor.due = math.inf
            self._finish(cursor.agent_id)

    def _enqueue(self, cursor: Cursor, message: LogStreamMessage) -> None:
        message = from_byte(message, cursor.next)
        size = len(message.data)
        cursor.next += size
        self._entries.append(message)
        self._queued_bytes += size
        self._wake()

    def _hold(self, cursor: Cursor, message: LogStreamMessage) -> None:
        """Keep what was published behind a gap, as long as that is not too much."""
        size = held_size(message)
        if message.sequence >= cursor.held_end and self._held_bytes + size <= HELD_LIMIT_BYTES:
            cursor.held.append(message)
            self._held_bytes += size

    def _join(self, cursor: Cursor) -> None:
        """Queue what is held and not behind a gap any more, as there is room for it."""
        while cursor.held and cursor.held[0].sequence <= cursor.next and self._has_room():
            message = cursor.held.popleft()
            self._held_bytes -= held_size(message)
            if message.sequence + len(message.data) > cursor.next:
                self._enqueue(cursor, message)

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
            cursor = self._cursors.pop((agent_id, stream), None)
            if cursor is not None:
                self._held_bytes -= sum(map(held_size, cursor.held))
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

    def _read_at(self, cursor: Cursor) -> None:
        cursor.read_now(self._loop.time())
        self._news.set()

    def _read_unless_published(self, cursor: Cursor) -> None:
        cursor.read_unless_published(self._loop.time() + _OVERTAKING_SECS)
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
                    if not due.is_being_published(now + _OVERTAKING_SECS):
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

    async def _read(self, cursor: Cursor) -> None:
        """Read what is missing, as there is room for it: a part of it, that others have their turn.

        Some reads are under way at a time, and what they bring is taken in order.
        """
        cursor.due = math.inf
        self._join(cursor)
        reads: deque[tuple[int, asyncio.Task[OutputChunk]]] = deque()
        asked = cursor.next
        last = asked + _TURN_BYTES
        try:
            while True:
                while asked < last and (count := self._count_to_read(cursor, asked, len(reads))):
                    read = self._requests.read_at(cursor.agent_id, cursor.stream, asked, count)
                    asked += count
                    reads.append((asked, asyncio.create_task(read, name="descartes-log-read")))
                if not reads:
                    break
                until, task = reads.popleft()
                if not self._take_in(cursor, await task, until):
                    break
                asked = max(asked, cursor.next)
        finally:
            for _, task in reads:
                task.cancel()
            await asyncio.gather(*(task for _, task in reads), return_exceptions=True)
            if cursor.next < cursor.end and cursor.due == math.inf:
                self._read_at(cursor)
        self._finish(cursor.agent_id)

    def _count_to_read(self, cursor: Cursor, asked: int, under_way: int) -> int:
        """Return how many bytes to ask for from ``asked`` on, 0 if now is not the time."""
        if (
            under_way >= _READS_IN_FLIGHT
            or len(self._entries) + under_way >= self._limit
            or self._queued_bytes + asked - cursor.next >= QUEUE_LIMIT_BYTES
            or asked >= cursor.gap_end
        ):
            return 0
        # The stream may be longer than is known, and what is held shorter than a read.
        return min(READ_BYTES, cursor.gap_end - asked) if cursor.held else READ_BYTES

    def _take_in(self, cursor: Cursor, chunk: OutputChunk, until: int) -> bool:
        """Queue what was read up to ``until``. Returns whether what was asked for next follows."""
        self._recovered()
        end = chunk.offset + len(chunk.data)
        if chunk.offset > cursor.next:
            held = cursor.held[0].sequence if cursor.held else chunk.offset
            self._gone(cursor, min(chunk.offset, held))
            self._join(cursor)
        if chunk.offset <= cursor.next < end:
            message = LogStreamMessage(
                agent_id=cursor.agent_id,
                stream_type=cursor.stream,
                data=chunk.data,
                sequence=chunk.offset,
            )
            cursor.end = max(cursor.end, end)
            cursor.nothing_read = 0
            self._append(cursor, message)
            return end >= until
        if chunk.data:
            # Publications are ahead of what is read: they bring the rest.
            self._read_unless_published(cursor)
        elif cursor.next < cursor.gap_end:
            cursor.nothing_read += 1
            cursor.due = self._loop.time() + _RETRY_SECS / 10
            if cursor.nothing_read >= _EMPTY_READS_LIMIT:
                self._gone(cursor, cursor.gap_end)
        return False

    def _gone(self, cursor: Cursor, end: int) -> None:
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
        cursor.due = math.inf

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
                if self._started and self._telling.reliable:
                    self._read_unless_published(cursor)
                else:
                    self._read_at(cursor)
        if details.status.is_terminal:
            self._exited.add(agent_id)
            self._finish(agent_id)
