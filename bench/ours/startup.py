"""From the start of a server's process to its first answer; and, after a crash, to its agents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from descartes_fast import AgentStatus, connect

from ..driver import AsyncRound, drive_async
from .server import OurServer, spawn_live

_PATIENCE_SECS = 5.0


async def start() -> dict[str, Any]:
    begun = time.perf_counter()
    with OurServer() as server:
        async with connect(server.endpoint) as client:
            answer = await client.health_check()
        return {"ms": (time.perf_counter() - begun) * 1e3, "done": int(answer.healthy)}


async def recover(agents: int) -> dict[str, Any]:
    """Kill a server with live agents, start another, and see how many of them run there."""
    with OurServer() as server:
        async with connect(server.endpoint) as client:
            infos, _ = await spawn_live(client, agents)
        server.kill()
        begun = time.perf_counter()
        server.start()
        running: set[Any] = set()
        async with connect(server.endpoint) as client:
            while time.perf_counter() - begun < _PATIENCE_SECS:
                running = {
                    info.id
                    for info in await client.list_remote_agents()
                    if info.status is AgentStatus.RUNNING
                }
                if len(running) >= len(infos):
                    break
                await asyncio.sleep(0.01)
        took = time.perf_counter() - begun
        return {"ms": took * 1e3, "done": len(running & {info.id for info in infos})}


@asynccontextmanager
async def startup() -> AsyncIterator[AsyncRound]:
    async def one_round(*, agents: int) -> dict[str, Any]:
        return await (recover(agents) if agents else start())

    yield one_round


if __name__ == "__main__":
    drive_async(startup)
