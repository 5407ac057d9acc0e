"""Following output: what is published and what is read, put together in whatever order it comes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import UUID, uuid4

import pytest

from descartes_fast import AgentStatus, LogStreamMessage, LogStreamType, OutputGone
from descartes_fast import logs as logs_module
from descartes_fast.log_cursor import Cursor, held_size
from descartes_fast.logs import LogFollower
from descartes_fast.requests import AgentDetails, OutputChunk

OUT = LogStreamType.STDOUT
AGENT = uuid4()


class WorkingFeed:
    """A feed whose publications the test brings itself."""

    def listen(self, topics: Iterable[bytes], listener: object) -> None: ...

    def leave(self, topics: Iterable[bytes], listener: object) -> None: ...

    async def synced(self) -> None: ...


class Server:
    """Has one agent's output; each read is answered when the test says so."""

    snapshot = True

    def __init__(self) -> None:
        self.profile = self
        self.output = b""
        self.trimmed = 0
        self.status = AgentStatus.RUNNING
        self.reads: list[tuple[int, int, asyncio.Future[OutputChunk]]] = []
        self.asked: list[tuple[int, int]] = []
        self.most_under_way = 0

    async def details(self, agent_id: UUID) -> AgentDetails:
        return AgentDetails(agent_id, self.status, {"stdout_bytes": len(self.output)})

    async def read_at(
        self, agent_id: UUID, stream: LogStreamType, offset: int, max_bytes: int
    ) -> OutputChunk:
        answer: asyncio.Future[OutputChunk] = asyncio.get_running_loop().create_future()
        read = (offset, max_bytes, answer)
        self.reads.append(read)
        self.asked.append((offset, max_bytes))
        self.most_under_way = max(self.most_under_way, len(self.reads))
        try:
            return await answer
        finally:
            if read in self.reads:
                self.reads.remove(read)

    def answer(self, number: int = 0, *, at_most: int | None = None) -> None:
        """Answer one of the reads under way, with ``at_most`` so many bytes."""
        offset, max_bytes, answer = self.reads.pop(number)
        start = max(offset, self.trimmed)
        size = max_bytes if at_most is None else min(max_bytes, at_most)
        data = self.output[start : start + size]
        if not answer.done():  # else it was given up a moment ago
            answer.set_result(OutputChunk(data, start, start + len(data)))


class Following:
    """A follower of that agent's stdout, and what was taken from it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        feeds: Any = WorkingFeed(), WorkingFeed()
        self.follower = LogFollower(server, *feeds, AGENT, 0)  # type: ignore[arg-type]
        self.taken = b""

    def publish(self, start: int, end: int) -> None:
        """Publish some of the output."""
        message = LogStreamMessage(
            agent_id=AGENT, stream_type=OUT, data=self.server.output[start:end], sequence=start
        )
        self.follower.published([message])

    async def asked(self, count: int = 1) -> None:
        """Wait until so many reads are under way."""
        async with asyncio.timeout(5):
            while len(self.server.reads) < count:  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def answer_all(self, number: int = 0) -> None:
        """Answer what is under way, one after another, until nothing more is asked for."""
        idle = 0
        while idle < 20:
            idle += 1
            if self.server.reads:
                self.server.answer(number)
                idle = 0
            await asyncio.sleep(0)

    async def take(self, until: int) -> None:
        """Take messages up to an offset, each where the one before ended."""
        async with asyncio.timeout(5):
            while len(self.taken) < until:
                message = await anext(self.follower)
                assert message.sequence == len(self.taken)
                assert message.data
                self.taken += message.data
        assert self.taken == self.server.output[: len(self.taken)]


@pytest.fixture
async def following() -> AsyncIterator[Following]:
    made = Following(Server())
    await made.follower.start()
    yield made
    await made.follower.aclose()
    assert not made.server.reads


async def test_what_is_published_behind_a_gap_is_held_and_not_read(following: Following) -> None:
    server = following.server
    server.output = random.Random(1).randbytes(1000)
    following.publish(100, 200)
    await following.asked()
    for start in range(200, 1000, 100):
        following.publish(start, start + 100)
    server.answer()
    await following.take(1000)
    assert server.asked == [(0, 100)]
    assert following.follower._held_bytes == 0


async def test_publications_that_close_the_gap_first_are_not_told_twice(
    following: Following,
) -> None:
    server = following.server
    server.output = random.Random(2).randbytes(500)
    following.publish(200, 300)
    await following.asked()
    following.publish(0, 200)
    await following.take(300)
    server.answer()
    following.publish(300, 500)
    await following.take(500)
    assert server.asked == [(0, 200)]


async def test_second_gap_is_seen_behind_the_first(following: Following) -> None:
    server = following.server
    server.output = random.Random(3).randbytes(500)
    following.publish(100, 200)
    following.publish(300, 500)
    await following.asked()
    server.answer()
    await following.asked()
    server.answer()
    await following.take(500)
    assert server.asked == [(0, 100), (200, 100)]


async def test_what_is_held_is_bounded_and_the_rest_is_read(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "HELD_LIMIT_BYTES", 5 * 700)
    server = following.server
    server.output = random.Random(4).randbytes(10_000)
    for start in range(100, 10_000, 100):
        following.publish(start, start + 100)
        assert following.follower._held_bytes <= 5 * 700
    await following.asked()
    server.answer()
    await following.asked()
    server.answer()
    await following.take(10_000)
    assert server.asked[0] == (0, 100)
    assert server.asked[1][0] == 600
    assert following.follower._held_bytes == 0


async def test_four_reads_are_under_way_and_come_in_order_however_they_are_answered(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "READ_BYTES", 100)
    server = following.server
    server.output = random.Random(5).randbytes(1000)
    following.publish(900, 1000)
    await following.asked(4)
    server.answer(3)
    server.answer(1)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(server.reads) == 2, "nothing more is asked for before the first has come"
    await following.answer_all(-1)
    await following.take(1000)
    assert server.asked == [(start, 100) for start in range(0, 900, 100)]
    assert server.most_under_way == 4


async def test_answer_that_is_short_is_gone_on_from(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "READ_BYTES", 100)
    server = following.server
    server.output = random.Random(6).randbytes(400)
    following.publish(390, 400)
    await following.asked(4)
    server.answer(0, at_most=30)
    await following.asked(4)
    assert server.asked[4] == (30, 100)
    await following.answer_all()
    await following.take(400)


async def test_only_what_is_not_held_is_told_as_trimmed(following: Following) -> None:
    server = following.server
    server.output = random.Random(7).randbytes(300)
    following.publish(200, 300)
    await following.asked()
    server.trimmed = 250
    server.answer()
    async with asyncio.timeout(5):
        with pytest.raises(OutputGone) as caught:
            await anext(following.follower)
        message = await anext(following.follower)
    assert (caught.value.start, caught.value.end) == (0, 200)
    assert (message.sequence, message.data) == (200, server.output[200:])


async def test_queue_that_is_full_holds_and_then_reads_within_its_bounds(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "QUEUE_LIMIT_BYTES", 1000)
    monkeypatch.setattr(logs_module, "HELD_LIMIT_BYTES", 3 * 700)
    monkeypatch.setattr(logs_module, "READ_BYTES", 300)
    server, follower = following.server, following.follower
    server.output = random.Random(8).randbytes(20_000)
    for start in range(0, 20_000, 100):
        following.publish(start, start + 100)
    while len(following.taken) < 20_000:
        await following.answer_all()
        assert follower._queued_bytes < 1000 + 300
        assert follower._queued_bytes == sum(len(m.data) for m in follower._entries)
        await following.take(len(following.taken) + 1)
    assert follower._held_bytes == 0


@pytest.mark.parametrize("seed", range(8))
async def test_every_byte_comes_once_and_in_order_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(logs_module, "_OVERTAKING_SECS", draw.choice([0.0, 0.001]))
    monkeypatch.setattr(logs_module, "QUEUE_LIMIT_BYTES", draw.choice([50, 500, 5000]))
    monkeypatch.setattr(logs_module, "HELD_LIMIT_BYTES", draw.choice([600, 2000, 100_000]))
    monkeypatch.setattr(logs_module, "READ_BYTES", draw.choice([7, 60, 1000]))
    monkeypatch.setattr(logs_module, "_TURN_BYTES", draw.choice([20, 300, 10_000]))
    monkeypatch.setattr(logs_module, "_RETRY_SECS", 0.01)
    server = Server()
    following = Following(server)
    whole = draw.randbytes(3000)
    await following.follower.start()
    published = 0
    loses = draw.random()
    try:
        async with asyncio.timeout(20):
            while len(following.taken) < len(whole):
                event = draw.randrange(5)
                if event == 0 and published < len(whole):
                    end = min(len(whole), published + draw.randrange(1, 90))
                    server.output = whole[:end]
                    if end == len(whole) or draw.random() > loses:
                        following.publish(max(0, published - draw.choice([0, 0, 5])), end)
                    published = end
                elif event == 1 and server.reads:
                    at_most = draw.choice([None, None, 5])
                    server.answer(draw.randrange(len(server.reads)), at_most=at_most)
                elif event == 2 and following.follower._entries:
                    await following.take(len(following.taken) + 1)
                for _ in range(draw.randrange(4)):
                    await asyncio.sleep(0)
    finally:
        await following.follower.aclose()
    assert following.taken == whole
    assert following.follower._held_bytes == 0


def cursor_at(start: int) -> Cursor:
    return Cursor(AGENT, OUT, start)


def test_cursor_waits_as_long_as_more_is_published() -> None:
    cursor = cursor_at(10)
    cursor.end = 100
    cursor.read_unless_published(1.0)
    cursor.next = 50
    assert cursor.is_being_published(2.0)
    assert cursor.due == 2.0
    assert not cursor.is_being_published(3.0), "nothing came since"
    assert cursor.due == 2.0


def test_cursor_with_a_gap_does_not_wait() -> None:
    cursor = cursor_at(0)
    cursor.read_unless_published(5.0)
    cursor.next = 50
    cursor.read_now(1.0)
    assert not cursor.is_being_published(9.0)
    assert cursor.due == 1.0


def test_held_messages_say_where_the_gap_ends() -> None:
    cursor = cursor_at(5)
    cursor.end = 100
    assert (cursor.gap_end, cursor.held_end) == (100, 5)
    message = LogStreamMessage(agent_id=AGENT, stream_type=OUT, data=b"x" * 10, sequence=40)
    cursor.held.append(message)
    assert (cursor.gap_end, cursor.held_end) == (40, 50)
    assert held_size(message) > 10
