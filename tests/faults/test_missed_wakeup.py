"""A wake-up of the edge-triggered descriptor that is missed would stall a socket: none is."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import pytest
import zmq

from descartes_fast.channel import SAFETY_INTERVAL_SECS, Channel

COUNT = int(os.environ.get("TEST_WAKEUPS", "30000"))
STALL_SECS = 0.2
WINDOWS = (1, 1, 1, 2, 3, 8, 64)  # messages in flight: mostly lock-step, where each wake-up counts


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.mark.timeout(60 + COUNT // 3000)
@pytest.mark.parametrize("batch", [1, 128])
async def test_messages_back_and_forth_never_wait_for_the_safety_timer(batch: int) -> None:
    assert STALL_SECS < SAFETY_INTERVAL_SECS
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
