"""Replies of one turn of the loop: in order, together, and none is left when the router closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zmq

from descartes_fast._core.quick_status import QuickReplies
from descartes_fast.server.envelope import Envelope
from descartes_fast.server.router import Router
from descartes_fast.server.statistics import Counters

REPLIES = [b"reply %d" % number for number in range(50)]


class Routed:
    """A router and a client of it; the envelope of the client's first request."""

    def __init__(self, router: Router, client: Any, counters: Counters, envelope: Envelope) -> None:
        self.router = router
        self.client = client
        self.counters = counters
        self.envelope = envelope

    def received(self) -> list[bytes]:
        """Return as many replies as were sent."""
        return [self.client.recv_multipart()[-1] for _ in REPLIES]


@pytest.fixture
async def routed() -> AsyncIterator[Routed]:
    requests: asyncio.Queue[Envelope] = asyncio.Queue()
    counters = Counters()
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        socket = context.socket(zmq.ROUTER)
        socket.router_mandatory = True
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        router = Router(
            socket,
            lambda envelope, body: requests.put_nowait(envelope),
            quick=QuickReplies(),
            queue_bytes=1024 * 1024,
            counters=counters,
        )
        client.linger = 0
        client.rcvtimeo = 5000
        client.connect(f"tcp://127.0.0.1:{port}")
        client.send_multipart([b"", b"request"])
        yield Routed(router, client, counters, await requests.get())
        router.close(linger_ms=0)


async def test_replies_of_one_turn_come_in_order(routed: Routed) -> None:
    for body in REPLIES:
        routed.router.reply(routed.envelope, body)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert routed.received() == REPLIES
    assert routed.counters.replies_sent == len(REPLIES)


async def test_replies_that_wait_for_the_end_of_the_turn_are_sent_at_close(routed: Routed) -> None:
    for body in REPLIES:
        routed.router.reply(routed.envelope, body)
    routed.router.close(linger_ms=1000)
    assert routed.received() == REPLIES
    assert (routed.counters.replies_sent, routed.counters.replies_dropped) == (len(REPLIES), 0)


async def test_reply_to_a_client_that_is_gone_is_counted(routed: Routed) -> None:
    routed.router.reply((b"nobody", b""), b"x")
    assert (routed.counters.replies_sent, routed.counters.replies_dropped) == (0, 1)
