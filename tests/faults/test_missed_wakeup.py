"""A wake-up of the edge-triggered descriptor that is missed would stall a socket: none is."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import zmq

from descartes_fast import (
    AgentStatus,
    CommandResponse,
    ControlCommand,
    ControlCommandType,
    serialize_zmq_message,
)
from descartes_fast import channel as channels
from descartes_fast._core.frames import LIBZMQ_FOUND
from descartes_fast._core.quick_status import QuickReplies
from descartes_fast.channel import Channel

COUNT = int(os.environ.get("TEST_WAKEUPS", "30000"))
SAFETY_SECS = 10.0  # long: a busy machine may make somebody wait for a fifth of a second
STALL_SECS = 2.0
WINDOWS = (1, 1, 1, 2, 3, 8, 64)  # messages in flight: mostly lock-step, where each wake-up counts


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(autouse=True)
def late_safety_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "SAFETY_INTERVAL_SECS", SAFETY_SECS)


@pytest.mark.timeout(60 + COUNT // 3000)
@pytest.mark.parametrize("batch", [1, 128])
async def test_messages_back_and_forth_never_wait_for_the_safety_timer(batch: int) -> None:
    assert STALL_SECS < channels.SAFETY_INTERVAL_SECS
    loop = asyncio.get_running_loop()
    dice = random.Random(COUNT)
    done = asyncio.Event()
    received, in_flight = 0, 0
    last = loop.time()
    longest = 0.0

    def echo(frames: list[bytes]) -> None:
        assert server.send(tuple(frames))

    def take(_: list[bytes]) -> None:
        nonlocal received, in_flight, last, longest
        now = loop.time()
        longest = max(longest, now - last)
        last = now
        received += 1
        in_flight -= 1
        if received >= COUNT:
            done.set()
        elif in_flight == 0:
            send_window()

    def send_window() -> None:
        nonlocal in_flight
        in_flight = dice.choice(WINDOWS)
        for _ in range(in_flight):
            assert client.send((b"", b"message"))

    with zmq.Context() as context:
        bound, connected = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        port = bound.bind_to_random_port("tcp://127.0.0.1")
        server = Channel(bound, echo, batch=batch)
        connected.connect(f"tcp://127.0.0.1:{port}")
        client = Channel(connected, take, batch=batch)
        last = loop.time()
        send_window()
        try:
            await asyncio.wait_for(done.wait(), 50 + COUNT / 3000)
        finally:
            client.close()
            server.close()
    print(f"{received} messages, the longest pause {longest * 1000:.1f} ms")
    assert longest < STALL_SECS


AGENT = UUID(int=1)
QUESTION = serialize_zmq_message(
    ControlCommand(
        request_id="", agent_id=AGENT, command_type=ControlCommandType.GET_STATUS, payload=None
    )
)
ANSWER = serialize_zmq_message(
    CommandResponse(request_id="", agent_id=AGENT, success=True, status=AgentStatus.RUNNING)
)


@pytest.mark.skipif(not LIBZMQ_FOUND, reason="libzmq's functions are not found here")
@pytest.mark.timeout(60 + COUNT // 3000)
@pytest.mark.parametrize("count", [1, 3])
async def test_two_threads_on_a_socket_never_take_the_wake_up_from_each_other(count: int) -> None:
    """Requests for the thread and for the loop, which also sends what nobody has asked for.

    Each client has one request in flight: a wake-up that is lost is a client that waits.
    """
    from descartes_fast._core.front import Front

    loop = asyncio.get_running_loop()
    dice = random.Random(COUNT)
    done = asyncio.Event()
    longest, answers, unasked = 0.0, 0, 0
    listener = b""

    def serve(frames: list[bytes]) -> None:
        nonlocal listener
        if frames[1] == b"listener":
            listener = frames[0]
        elif dice.random() < 0.5:
            assert server.send((frames[0], frames[1]))
        else:
            loop.call_soon(answer_later, (frames[0], frames[1]))

    def answer_later(frames: tuple[bytes, ...]) -> None:
        if not server.closed:  # at the end of the test some are still to be answered
            assert server.send(frames)

    def hear(_: list[bytes]) -> None:
        nonlocal unasked
        unasked += 1

    class Asking:
        def __init__(self) -> None:
            self.channel = connected(self.take)
            self.ask()

        def ask(self) -> None:
            self.asked = dice.choice((QUESTION, QUESTION, b"for the loop"))
            self.since = loop.time()
            assert self.channel.send((self.asked,))
            for _ in range(dice.choice((0, 1, 1, 5)) if listener else 0):
                server.send((listener, b"unasked"))

        def take(self, frames: list[bytes]) -> None:
            nonlocal longest, answers
            assert frames == [ANSWER if self.asked is QUESTION else self.asked]
            longest = max(longest, loop.time() - self.since)
            answers += 1
            if answers < COUNT:
                self.ask()
            else:
                done.set()

    def connected(on_message: Callable[[list[bytes]], None]) -> Channel:
        socket = context.socket(zmq.DEALER)
        socket.connect(f"tcp://127.0.0.1:{port}")
        return Channel(socket, on_message)

    quick = QuickReplies()
    quick.tell(AGENT.bytes, ANSWER)
    with zmq.Context() as context:
        bound = context.socket(zmq.ROUTER)
        port = bound.bind_to_random_port("tcp://127.0.0.1")
        server = Channel(
            bound, serve, frames=Front(bound, quick, safety_ms=int(SAFETY_SECS * 1000))
        )
        listening = connected(hear)
        assert listening.send((b"listener",))
        clients = [Asking() for _ in range(count)]
        try:
            await asyncio.wait_for(done.wait(), 50 + COUNT / 3000)
        finally:
            for channel in (listening, server, *(client.channel for client in clients)):
                channel.close()
    print(f"{answers} answers, {unasked} unasked, the longest wait {longest * 1000:.1f} ms")
    assert unasked > COUNT
    assert longest < STALL_SECS
