"""Publishes updates with a PUB of zmq.asyncio, msgpack and a topic, for each line on stdin."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict

import msgpack
import uvloop
import zmq
import zmq.asyncio

from ..updates import peer_updates
from .lossless import publish, publishing_socket


async def serve(count: int) -> None:
    updates = list(peer_updates(count))
    with zmq.asyncio.Context() as context, publishing_socket(context) as socket:
        print(socket.get_string(zmq.LAST_ENDPOINT), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            for update in updates:
                topic = f"status/{update.agent_id}".encode()
                await publish(socket, topic, msgpack.packb(asdict(update)))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
