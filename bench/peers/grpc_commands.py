"""get_status over grpc.aio, on asyncio's own loop as its examples are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgpack

from ..driver import AsyncRound, absent, drive_async, timed_workers
from .children import child_server
from .messages import Status

try:
    import grpc
    import grpc.aio
except ImportError:
    absent("grpcio is not installed")


@asynccontextmanager
async def commands() -> AsyncIterator[AsyncRound]:
    async with AsyncExitStack() as stack:
        port, agent_id = stack.enter_context(child_server("peers.grpc_server"))
        # Without an option of its own each channel would share one connection with the others.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
            )
            for _ in range(8)
        ]

        def call(channel: Any) -> Callable[[], Awaitable[Any]]:
            method = channel.unary_unary("/bench.Agents/GetStatus")

            async def get_status() -> None:
                request = {"request_id": "1", "agent_id": agent_id}
                answer = Status(**msgpack.unpackb(await method(msgpack.packb(request), timeout=30)))
                if answer.status != "running":
                    raise AssertionError("not running")

            return get_status

        calls = [call(channel) for channel in channels]

        async def one_round(*, count: int, in_flight: int = 1, clients: int = 1) -> dict[str, Any]:
            return await timed_workers(calls[:clients], count=count, in_flight=in_flight)

        yield one_round


if __name__ == "__main__":
    drive_async(commands, loop_factory=asyncio.new_event_loop)
