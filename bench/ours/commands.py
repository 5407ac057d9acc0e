"""get_status through the public asynchronous client: one or more clients, some in flight.

The server is one of its own, or the one whose endpoint is given.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from descartes_fast import AgentConfig, AgentStatus, ZmqClient, connect

from ..driver import AsyncRound, drive_async, timed_workers
from .server import OurServer


@asynccontextmanager
async def commands() -> AsyncIterator[AsyncRound]:
    async with AsyncExitStack() as stack:
        endpoint = sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(OurServer()).endpoint
        clients = [await stack.enter_async_context(connect(endpoint)) for _ in range(8)]
        config = AgentConfig(name="sleeper", model_backend="sleep", task="infinity")
        agent = await clients[0].spawn_remote(config)

        def call(client: ZmqClient) -> Callable[[], Awaitable[Any]]:
            async def get_status() -> None:
                if await client.get_agent_status(agent.id) is not AgentStatus.RUNNING:
                    raise AssertionError("not running")

            return get_status

        calls = [call(client) for client in clients]

        async def one_round(
            *, count: int, in_flight: int = 1, clients: int = 1, pause_secs: float = 0.0
        ) -> dict[str, Any]:
            return await timed_workers(
                calls[:clients], count=count, in_flight=in_flight, pause_secs=pause_secs
            )

        yield one_round


if __name__ == "__main__":
    drive_async(commands)
