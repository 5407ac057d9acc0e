"""get_status over zmq.asyncio and msgpack: a DEALER, a receiving task, futures by request id."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import msgpack
import zmq
import zmq.asyncio

from ..driver import AsyncRound, drive_async, timed_workers
from .children import child_server
from .messages import Status

__all__ = ["ZmqPeer"]


class ZmqPeer:
    """A client with any number of requests in flight."""

    def __init__(self, context: zmq.asyncio.Context, port: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.connect(f"tcp://127.0.0.1:{port}")
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._receiver = asyncio.create_task(self._receive())

    async def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer."""
        request_id = str(uuid.uuid4())
        future = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        try:
            await self._socket.send(msgpack.packb(message | {"request_id": request_id}))
            return await asyncio.wait_for(future, 30)
        finally:
            del self._waiting[request_id]

    async def get_status(self, agent_id: str) -> Status:
        """Return an agent's status."""
        return Status(**await self.request({"type": "get_status", "agent_id": agent_id}))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._receiver.cancel()
        await asyncio.gather(self._receiver, return_exceptions=True)
        self._socket.close()

    async def _receive(self) -> None:
        while True:
            answer = msgpack.unpackb(await self._socket.recv())
            future = self._waiting.get(answer["request_id"])
            if future is not None and not future.done():
                future.set_result(answer)


@asynccontextmanager
async def commands() -> AsyncIterator[AsyncRound]:
    with child_server("peers.zmq_server") as (port, agent_id), zmq.asyncio.Context() as context:
        peers = [ZmqPeer(context, port) for _ in range(8)]

        def call(peer: ZmqPeer) -> Callable[[], Awaitable[Any]]:
            async def get_status() -> None:
                if (await peer.get_status(agent_id)).status != "running":
                    raise AssertionError("not running")

            return get_status

        calls = [call(peer) for peer in peers]

        async def one_round(
            *, count: int, in_flight: int = 1, clients: int = 1, pause_secs: float = 0.0
        ) -> dict[str, Any]:
            return await timed_workers(
                calls[:clients], count=count, in_flight=in_flight, pause_secs=pause_secs
            )

        try:
            yield one_round
        finally:
            for peer in peers:
                await peer.__aexit__()


if __name__ == "__main__":
    drive_async(commands)
