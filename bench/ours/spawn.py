"""spawn_remote end to end, exec confirmed. The agents are ``true`` and end by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from descartes_fast import AgentConfig, connect

from ..driver import AsyncRound, drive_async, timed_workers
from .server import OurServer


@asynccontextmanager
async def spawns() -> AsyncIterator[AsyncRound]:
    with OurServer() as server:
        async with connect(server.endpoint) as client:
            config = AgentConfig(name="true", model_backend="true", task="x")

            async def spawn() -> None:
                await client.spawn_remote(config)

            async def one_round(*, count: int, in_flight: int) -> dict[str, Any]:
                figures = await timed_workers([spawn], count=count, in_flight=in_flight)
                while (await client.health_check()).active_agents:
                    await asyncio.sleep(0.01)
                return figures

            yield one_round


if __name__ == "__main__":
    drive_async(spawns)
