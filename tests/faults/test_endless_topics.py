"""A peer subscribes to topics without end: it is hung up on, and others hear what they did."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator

import pytest
import zmq

from descartes_fast import AgentConfig, AgentStatus, connect
from faults.processes import memory_bytes
from faults.server_process import server_process

BOUND_BYTES = 200 << 20  # all of them would take 340 MiB and more

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nobody tells what a peer has sent")


def subscribe_without_end(pub_endpoint: str, messages: Iterable[list[bytes]]) -> bool:
    """Send what a subscriber does on one connection; return whether it was ended."""
    with zmq.Context() as context, context.socket(zmq.XSUB) as socket:
        socket.linger = 0
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, 0)  # with a full queue it would not look for the end
        socket.set(zmq.RECONNECT_IVL, -1)
        with socket.get_monitor_socket(int(zmq.EVENT_DISCONNECTED)) as monitor:
            monitor.linger = 0
            socket.connect(pub_endpoint)
            for frames in messages:
                socket.send_multipart(frames)
            ended = monitor.poll(20_000) != 0
            socket.monitor(None, 0)
        return ended


def subscriptions(count: int, random_bytes: int, prefix: str = "") -> Iterator[list[bytes]]:
    for _ in range(count):
        yield [b"\1" + (prefix + secrets.token_hex(random_bytes)).encode()]


def behind_another_frame(count: int) -> Iterator[list[bytes]]:
    for (subscription,) in subscriptions(count, 20):
        yield [b"no subscription", subscription]


def after_cancels_of_nothing(count: int) -> Iterator[list[bytes]]:
    for number in range(30_000):
        yield [b"x", b"\0cancelled %d " % number + bytes(200)]
    yield from subscriptions(count, 20)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(lambda: subscriptions(200_000, 20), id="many"),
        pytest.param(lambda: subscriptions(60_000, 64), id="long"),
        pytest.param(lambda: subscriptions(60_000, 80), id="too-long"),
        pytest.param(lambda: subscriptions(200_000, 20, "sync/"), id="asking-for-an-echo"),
        pytest.param(lambda: behind_another_frame(200_000), id="behind-another-frame"),
        pytest.param(lambda: after_cancels_of_nothing(200_000), id="after-cancels-of-nothing"),
    ],
)
async def test_endless_topics_end_that_connection_and_no_other(
    messages: Callable[[], Iterator[list[bytes]]],
) -> None:
    with server_process(tcp=True) as server:
        async with connect(server.endpoint) as client:
            subscription = await client.subscribe_status_updates()
            before = memory_bytes(server.process.pid)
            assert await asyncio.to_thread(subscribe_without_end, server.pub_endpoint, messages())
            grown = memory_bytes(server.process.pid) - before
            assert grown < BOUND_BYTES
            agent = await client.spawn_remote(
                AgentConfig(name="heard", model_backend="sh", task="exit 0")
            )
            async with asyncio.timeout(10):
                async for update in subscription:
                    if update.agent_id == agent.id and update.status is AgentStatus.COMPLETED:
                        break
            assert subscription.dropped == 0
