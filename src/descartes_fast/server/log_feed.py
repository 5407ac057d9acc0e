"""Agents' output from the files to the publisher: fair, bounded in each turn, in order.

What is published of a stream is a run of bytes without a hole, except where nobody
subscribed or the file was trimmed; each message says its offset. When an agent ends, the
rest is published before its end is. Where descriptors run short the feed waits; what a
disk does not give back is skipped and counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from .._core import LogStreamMessage, LogStreamType
from ..errors import OutputGone, ServerBusy
from .agent import Agent
from .publisher import Publisher
from .statistics import Counters

__all__ = ["LogFeed"]

MAX_MESSAGE_BYTES = 64 * 1024
_TURN_BYTES = 256 * 1024
_TURN_AGENTS = 32
_SHORTAGE_SECS = 0.05
_STREAMS = (LogStreamType.STDOUT, LogStreamType.STDERR)


class LogFeed:
    """Publishes what grows. Each loop turn publishes at most 256 KiB, of up to 32 agents."""

    def __init__(self, publisher: Publisher, counters: Counters) -> None:
        self._publisher = publisher
        self._counters = counters
        self._positions: dict[int, _Position] = {}
        self._waiting: deque[_Position] = deque()
        self._turn: asyncio.Handle | None = None
        self._resting = False
        self._loop = asyncio.get_running_loop()

    def output_grew(self, agent: Agent) -> None:
        """Publish what is new, if anybody wants it; soon, not now."""
        self._take_up(agent)

    def leave_out(self, agent: Agent) -> None:
        """Publish nothing of what there is: an earlier server has, or it can be read."""
        self._positions[agent.id.int] = position = _Position(agent)
        position.skip_to_end()

    def finish(self, agent: Agent, then: Callable[[], None]) -> None:
        """Publish the rest of an agent's output, then call ``then``."""
        position = self._take_up(agent)
        if position.queued:
            position.then = then
        else:
            del self._positions[agent.id.int]
            then()

    def close(self) -> None:
        """Publish nothing more; what waited for its logs is told at once."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        waiting, self._waiting = self._waiting, deque()
        for position in waiting:
            if position.then is not None:
                position.then()

    def _take_up(self, agent: Agent) -> _Position:
        position = self._positions.get(agent.id.int)
        if position is None:
            position = self._positions[agent.id.int] = _Position(agent)
        if not self._is_wanted(position):
            position.skip_to_end()
        elif not position.queued:
            position.queued = True
            self._waiting.append(position)
            self._have_a_turn()
        return position

    def _have_a_turn(self) -> None:
        """See to it that what waits has a turn: at once, or later where something ran short."""
        if self._turn is None and self._waiting:
            if self._resting:
                self._turn = self._loop.call_later(_SHORTAGE_SECS, self._take_turn)
            else:
                self._turn = self._loop.call_soon(self._take_turn)

    def _is_wanted(self, position: _Position) -> bool:
        topics = self._publisher.topics
        if position.version != topics.version:
            position.version = topics.version
            position.wanted = topics.wanted(position.topic)
        return position.wanted

    def _take_turn(self) -> None:
        self._turn = None
        self._resting = False
        left = _TURN_BYTES
        try:
            for _ in range(min(len(self._waiting), _TURN_AGENTS)):
                left -= self._serve(self._waiting.popleft())
                if left <= 0 or self._resting:
                    break
        finally:
            self._have_a_turn()

    def _serve(self, position: _Position) -> int:
        """Publish some of an agent's output, or its end; return how many bytes that was."""
        published = 0
        try:
            if self._is_wanted(position):
                published = self._publish(position)
            else:
                position.skip_to_end()
        except ServerBusy:
            self._resting = True
        except Exception as error:
            self._give_up(position, error)
        if position.has_more:
            self._waiting.append(position)
        else:
            position.queued = False
            if position.then is not None:
                del self._positions[position.agent.id.int]
                position.then()
        return published

    def _publish(self, position: _Position) -> int:
        """Publish at most one message of each stream; return how many bytes that was."""
        return sum(self._publish_from(position, stream) for stream in _STREAMS)

    def _publish_from(self, position: _Position, stream: LogStreamType) -> int:
        agent = position.agent
        offset = position.offsets[stream]
        output = agent.output(stream)
        if offset >= output.end:
            return 0
        try:
            data = output.read(offset, MAX_MESSAGE_BYTES)
        except OutputGone as gone:
            self._skip(position, stream, min(gone.end, output.end))
            return 0
        if not data:
            # The file is shorter than said; nothing that is there is left unpublished.
            position.offsets[stream] = output.end
            return 0
        position.offsets[stream] = offset + len(data)
        self._publisher.publish_log(
            LogStreamMessage(agent_id=agent.id, stream_type=stream, data=data, sequence=offset),
            len(data),
        )
        return len(data)

    def _give_up(self, position: _Position, error: Exception) -> None:
        """Leave out what cannot be read: the agent's end, and the others, do not wait for it."""
        agent = position.agent
        for stream in _STREAMS:
            self._skip(position, stream, agent.output(stream).end)
        self._loop.call_exception_handler(
            {"message": f"output of agent {agent.id} was not published", "exception": error}
        )

    def _skip(self, position: _Position, stream: LogStreamType, to: int) -> None:
        self._counters.log_bytes_skipped += to - position.offsets[stream]
        position.offsets[stream] = to


class _Position:
    """How far an agent's streams are published."""

    __slots__ = ("agent", "offsets", "queued", "then", "topic", "version", "wanted")

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.topic = agent.id_text.encode()
        self.offsets = dict.fromkeys(_STREAMS, 0)
        self.queued = False
        self.version = -1
        self.wanted = False
        self.then: Callable[[], None] | None = None

    @property
    def has_more(self) -> bool:
        return any(self.offsets[stream] < self.agent.output(stream).end for stream in _STREAMS)

    def skip_to_end(self) -> None:
        for stream in _STREAMS:
            self.offsets[stream] = self.agent.output(stream).end
