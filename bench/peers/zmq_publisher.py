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


async def publish(count: int) -> None:
    updates = list(peer_updates(count))
    with zmq.asyncio.Context() as context, context.socket(zmq.PUB) as socket:
        socket.set(zmq.XPUB_NODROP, 1)
        socket.set(zmq.LINGER, 0)
        print(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            for update in updates:
                topic = f"status/{update.agent_id}".encode()
                await socket.send(topic + b"\0" + msgpack.packb(asdict(update)))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(publish(int(sys.argv[1])))
