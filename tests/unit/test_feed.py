"""What a feed passes on of what is published: by topic, in order, and from its server only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
import zmq

from descartes_fast import (
    DescartesError,
    HealthCheckRequest,
    StatusUpdate,
    StatusUpdateType,
    ZmqRunnerConfig,
    serialize_zmq_message,
)
from descartes_fast import channel as channel_module
from descartes_fast._core.frames import LIBZMQ_FOUND
from descartes_fast.feed import Feed, Publication
from descartes_fast.profile import ServerProfile

SERVER = "the-server"
BEFORE_AFTER = ("before", "after")


class Heard:
    """A listener that notes what it is told."""

    def __init__(self) -> None:
        self.updates: list[str | None] = []
        self.rejoins = 0
        self.on_update: Callable[[str | None], None] = lambda message: None
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for updates until there are those that make ``condition`` true."""
        async with asyncio.timeout(5):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def published(self, messages: Sequence[Publication]) -> None:
        for message in messages:
            assert isinstance(message, StatusUpdate)
            self.updates.append(message.message)
            self.on_update(message.message)
            self._changed.set()

    def rejoined(self) -> None:
        self.rejoins += 1

    def failed(self, make_error: Callable[[], DescartesError], final: bool) -> None:
        pass


class Publisher:
    """An XPUB that answers nothing by itself."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.socket = context.socket(zmq.XPUB)
        self.socket.linger = 0
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")

    def send(self, agent_id: UUID, *messages: str) -> None:
        for message in messages:
            update = StatusUpdate(
                agent_id=agent_id, update_type=StatusUpdateType.STATUS_CHANGED, message=message
            )
            self.send_frame(b"status/%b\0%b" % (str(agent_id).encode(), encoded(update)))

    def send_frame(self, frame: bytes) -> None:
        self.socket.send(frame)


def encoded(message: Any) -> bytes:
    return serialize_zmq_message(message)


@pytest.fixture(params=[True, False], ids=["libzmq", "plain"])
def frames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param and not LIBZMQ_FOUND:
        pytest.skip("libzmq's functions are not found here")
    monkeypatch.setattr(channel_module, "LIBZMQ_FOUND", request.param)


@pytest.fixture
async def publisher(frames: None) -> AsyncIterator[Publisher]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    publisher = Publisher(context)
    yield publisher
    publisher.socket.close()
    context.term()


@pytest.fixture
async def feed(publisher: Publisher) -> AsyncIterator[Feed]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    feed = Feed(
        ZmqRunnerConfig(endpoint="tcp://127.0.0.1:9"),
        context,
        ServerProfile(
            server_id=SERVER,
            journal_id=None,
            features=frozenset(),
            pub_endpoint=f"tcp://127.0.0.1:{publisher.port}",
        ),
        high_water_mark=1000,
    )
    yield feed
    await feed.aclose()
    context.term()


async def subscribed(publisher: Publisher, feed: Feed, *topics: bytes) -> None:
    """Open the feed and wait until the publisher has seen the topics."""
    feed.open()
    waiting = set(topics)
    async with asyncio.timeout(5):
        while waiting:
            if publisher.socket.poll(0):
                waiting.discard(publisher.socket.recv()[1:])
            else:
                await asyncio.sleep(0.001)


async def test_updates_reach_who_listens_to_their_topic_in_order(
    publisher: Publisher, feed: Feed
) -> None:
    first, second = uuid4(), uuid4()
    everything, one = Heard(), Heard()
    topic = b"status/" + str(first).encode()
    feed.listen([b"status/"], everything)
    feed.listen([topic], one)
    await subscribed(publisher, feed, b"status/", topic)
    for round_number in range(3):
        for number in range(100):
            publisher.send(first, f"{round_number}: {number}")
            publisher.send(second, f"{round_number}: {number} too")
    await everything.until(lambda: len(everything.updates) == 600)
    sent = [f"{round_number}: {number}" for round_number in range(3) for number in range(100)]
    assert one.updates == sent
    assert everything.updates == [message + end for message in sent for end in ("", " too")]
    assert feed.broken_messages == 0


async def test_what_is_broken_is_counted_and_the_rest_arrives_in_order(
    publisher: Publisher, feed: Feed
) -> None:
    agent = uuid4()
    heard = Heard()
    feed.listen([b"status/"], heard)
    await subscribed(publisher, feed, b"status/")
    topic = b"status/" + str(agent).encode()
    for number in range(3):  # in the first round the topic is unknown
        publisher.send(agent, f"{number}: before")
        publisher.send_frame(topic)
        publisher.send_frame(topic + b"\0")
        publisher.send_frame(topic + b"\0\xc1")
        publisher.send_frame(topic + b"\0" + encoded(HealthCheckRequest(request_id="1")))
        publisher.send(agent, f"{number}: after")
    await heard.until(lambda: len(heard.updates) == 6)
    assert heard.updates == [f"{number}: {when}" for number in range(3) for when in BEFORE_AFTER]
    assert feed.broken_messages == 12


async def test_another_servers_publications_are_left_out_between_the_echoes(
    publisher: Publisher, feed: Feed
) -> None:
    agent = uuid4()
    heard = Heard()
    feed.listen([b"status/", b"sync/"], heard)
    await subscribed(publisher, feed, b"status/", b"sync/")
    for _ in range(2):  # in the first round the topic is unknown
        publisher.send(agent, "ours", "ours")
        publisher.send_frame(b"sync/1\0another-server")
        publisher.send(agent, "foreign", "foreign")
        publisher.send_frame(b"status/" + str(agent).encode() + b"\0broken")
        publisher.send_frame(b"sync/1\0" + SERVER.encode())
        publisher.send(agent, "ours again")
    await heard.until(lambda: len(heard.updates) == 6)
    assert heard.updates == ["ours", "ours", "ours again"] * 2
    assert heard.rejoins == 2
    assert feed.broken_messages == 0


async def test_listeners_that_come_and_leave_between_and_among_updates(
    publisher: Publisher, feed: Feed
) -> None:
    agent = uuid4()
    staying, leaving, coming = Heard(), Heard(), Heard()
    for listener in (staying, leaving):
        feed.listen([b"status/"], listener)
    await subscribed(publisher, feed, b"status/")
    publisher.send(agent, "both")
    await staying.until(lambda: staying.updates == ["both"])

    def change(message: str | None) -> None:
        if message == "change":
            feed.leave([b"status/"], leaving)
            feed.listen([b"status/"], coming)

    staying.on_update = change
    publisher.send(agent, "change")
    await staying.until(lambda: staying.updates[-1] == "change")
    heard_until_then = len(leaving.updates)
    publisher.send(agent, "others")
    await staying.until(lambda: staying.updates[-1] == "others")
    assert len(leaving.updates) == heard_until_then
    assert coming.updates == ["others"]
    feed.leave([b"status/"], staying)
    feed.leave([b"status/"], coming)
    publisher.send(agent, "nobody")
