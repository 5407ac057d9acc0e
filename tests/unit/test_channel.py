"""One ZeroMQ socket on the event loop, against a plain socket over inproc."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
import zmq

from descartes_fast import UsageError
from descartes_fast.channel import Channel, Monitor, MonitorEvent


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.term()


def plain(context: zmq.Context[zmq.Socket[bytes]], kind: int = zmq.PAIR) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.set(zmq.LINGER, 0)
    return socket


class Inbox:
    """Collects messages and lets a test wait for a number of them."""

    def __init__(self) -> None:
        self.messages: list[list[bytes]] = []
        self._changed = asyncio.Event()

    def __call__(self, frames: list[bytes]) -> None:
        self.messages.append(frames)
        self._changed.set()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.messages) < count:
                self._changed.clear()
                await self._changed.wait()


async def test_messages_arrive_whole_and_in_order(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    here, there = plain(context), plain(context)
    here.bind("inproc://test")
    there.connect("inproc://test")
    inbox = Inbox()
    channel = Channel(here, inbox)
    for number in range(300):
        there.send_multipart([b"%d" % number, b"", b"body"])
    await inbox.wait(300)
    assert inbox.messages == [[b"%d" % number, b"", b"body"] for number in range(300)]
    assert channel.received_count == 300
    channel.close()
    there.close()


async def test_batch_leaves_the_loop_its_turn(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    here, there = plain(context), plain(context)
    here.bind("inproc://test")
    there.connect("inproc://test")
    for _ in range(100):
        there.send(b"x")
    seen: list[int] = []
    inbox = Inbox()
    channel = Channel(here, inbox, batch=10)

    def turn() -> None:
        seen.append(len(inbox.messages))
        if len(inbox.messages) < 100:
            asyncio.get_running_loop().call_soon(turn)

    turn()
    await inbox.wait(100)
    assert any(0 < count < 100 for count in seen)
    channel.close()
    there.close()


async def test_reply_that_arrives_while_sending_is_not_missed(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    """A send takes the socket's news away from the descriptor; the channel looks again."""
    here, there = plain(context, zmq.DEALER), plain(context, zmq.DEALER)
    here.bind("inproc://test")
    there.connect("inproc://test")
    inbox = Inbox()
    channel = Channel(here, inbox)
    loop = asyncio.get_running_loop()
    started = loop.time()
    for number in range(200):
        there.send(b"%d" % number)
        assert channel.send((b"ping",))
        await inbox.wait(number + 1)
    assert loop.time() - started < 2  # the safety timer alone would take 200 s
    channel.close()
    there.close()


async def test_error_of_a_handler_reaches_the_loop_and_reading_goes_on(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    here, there = plain(context), plain(context)
    here.bind("inproc://test")
    there.connect("inproc://test")
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda loop, info: reported.append(info["exception"]))
    inbox = Inbox()

    def handle(frames: list[bytes]) -> None:
        if frames == [b"bad"]:
            raise ValueError("bad message")
        inbox(frames)

    channel = Channel(here, handle)
    there.send(b"bad")
    there.send(b"good")
    await inbox.wait(1)
    assert [str(error) for error in reported] == ["bad message"]
    loop.set_exception_handler(None)
    channel.close()
    there.close()


async def test_send_without_room_is_false_and_room_is_told_once(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    here, there = plain(context, zmq.DEALER), plain(context, zmq.DEALER)
    here.set(zmq.SNDHWM, 5)
    there.set(zmq.RCVHWM, 5)
    here.bind("inproc://test")
    there.connect("inproc://test")
    room = asyncio.Event()
    told: list[bool] = []

    def writable() -> None:
        told.append(True)
        room.set()

    channel = Channel(here, on_writable=writable)
    sent = 0
    while channel.send((b"", b"x")):
        sent += 1
    assert sent == channel.sent_count
    assert sent >= 5
    for _ in range(sent):
        assert there.recv_multipart() == [b"", b"x"]
    async with asyncio.timeout(5):
        await room.wait()
    assert channel.send((b"", b"y"))
    await asyncio.sleep(0.01)
    assert told == [True]
    channel.close()
    there.close()


async def test_send_to_an_unknown_peer_of_a_mandatory_router_raises(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    router = plain(context, zmq.ROUTER)
    router.set(zmq.ROUTER_MANDATORY, 1)
    router.bind("inproc://test")
    channel = Channel(router)
    with pytest.raises(zmq.ZMQError) as caught:
        channel.send((b"nobody", b"", b"body"))
    assert caught.value.errno == zmq.EHOSTUNREACH
    assert channel.sent_count == 0
    channel.close()


async def test_send_that_raises_hides_no_message(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("descartes_fast.channel.SAFETY_INTERVAL_SECS", 60.0)
    router, there = plain(context, zmq.ROUTER), plain(context, zmq.DEALER)
    router.set(zmq.ROUTER_MANDATORY, 1)
    router.bind("inproc://test")
    there.connect("inproc://test")
    inbox = Inbox()
    channel = Channel(router, inbox)
    for number in range(1, 4):
        there.send(b"%d" % number)
        # The loop stands still: libzmq takes the news in at a send, a millisecond after the last.
        time.sleep(0.005)  # noqa: ASYNC251
        with pytest.raises(zmq.ZMQError):
            channel.send((b"nobody", b"", b"body"))
        await inbox.wait(number)
        await asyncio.sleep(0.01)  # until nobody is about to look at the socket anyway
    channel.close()
    there.close()


async def test_close_in_a_handler_and_again_is_fine(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    here, there = plain(context), plain(context)
    here.bind("inproc://test")
    there.connect("inproc://test")
    inbox = Inbox()

    def handle(frames: list[bytes]) -> None:
        inbox(frames)
        channel.close()

    channel = Channel(here, handle)
    there.send(b"1")
    there.send(b"2")
    await inbox.wait(1)
    channel.close()
    assert channel.closed
    assert inbox.messages == [[b"1"]]
    there.close()


async def test_monitor_tells_connecting_and_losing(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    server, client = plain(context, zmq.ROUTER), plain(context, zmq.DEALER)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    events: list[MonitorEvent] = []
    changed = asyncio.Event()

    def note(event: MonitorEvent) -> None:
        events.append(event)
        changed.set()

    async def until(kind: int) -> None:
        async with asyncio.timeout(5):
            while kind not in [event.event for event in events]:
                changed.clear()
                await changed.wait()

    channel = Channel(client)
    monitor = Monitor(client, note)
    client.connect(f"tcp://127.0.0.1:{port}")
    await until(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    server.close()
    await until(zmq.EVENT_DISCONNECTED)
    assert events[0].endpoint == f"tcp://127.0.0.1:{port}"
    monitor.close()
    monitor.close()
    channel.close()


def test_loop_without_add_reader_is_refused_by_name(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError

    async def make() -> None:
        asyncio.get_running_loop().add_reader = refuse  # type: ignore[method-assign]
        Channel(socket)

    socket = plain(context)
    runner = asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)
    with runner, pytest.raises(UsageError, match="SelectorEventLoop"):
        runner.run(make())
    socket.close()
