"""A PUB of zmq.asyncio that loses nothing: it waits for slow subscribers instead of dropping."""

from __future__ import annotations

import asyncio

import zmq
import zmq.asyncio

__all__ = ["publish", "publishing_socket"]

_PAUSE_SECS = 0.001


def publishing_socket(context: zmq.asyncio.Context) -> zmq.asyncio.Socket:
    """Return a bound socket."""
    socket = context.socket(zmq.PUB)
    socket.set(zmq.XPUB_NODROP, 1)
    socket.set(zmq.LINGER, 0)
    socket.bind_to_random_port("tcp://127.0.0.1")
    return socket


async def publish(socket: zmq.asyncio.Socket, topic: bytes, body: bytes) -> None:
    """Send when there is room: with XPUB_NODROP, POLLOUT is there and a send still may fail."""
    while True:
        try:
            await socket.send(b"%b\0%b" % (topic, body))
            return
        except zmq.Again:
            await asyncio.sleep(_PAUSE_SECS)
