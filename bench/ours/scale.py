"""A server with many live agents: lists, statuses, memory, idle time, and spawns beside them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    ListAgentsResponse,
    connect,
    serialize_zmq_message,
)

from ..driver import AsyncRound, drive_async, timed_workers
from ..processes import cpu_secs, memory_bytes
from .server import OurServer, spawn_live

_WARM_UP_AGENTS = 20
_SETTLE_SECS = 2.0
_SHORT = AgentConfig(name="true", model_backend="true", task="x")


def read_every_field(infos: list[AgentInfo]) -> int:
    """Look at all that a list tells; return how many agents run."""
    running = 0
    for info in infos:
        _ = (info.id, info.name, info.model_backend, info.started_at, info.task)
        _ = (info.paused_at, info.pause_mode, info.attach_info)
        running += info.status is AgentStatus.RUNNING
    return running


@asynccontextmanager
async def scale() -> AsyncIterator[AsyncRound]:
    with OurServer() as server:
        async with connect(server.endpoint) as client:
            pids = [server.pid, *server.keeper_pids()]
            # The first agents pay for what is loaded once.
            warm, _ = await spawn_live(client, _WARM_UP_AGENTS)
            before = memory_bytes(pids)
            wanted = int(sys.argv[1]) - len(warm)
            added, words = await spawn_live(client, wanted)
            infos = warm + added
            await asyncio.sleep(_SETTLE_SECS)
            per_agent = (memory_bytes(pids) - before) / max(1, len(added))
            size = len(
                serialize_zmq_message(ListAgentsResponse(request_id="", success=True, agents=infos))
            )
            agents: Iterator[AgentInfo] = iter(())
            tell = {"live": len(infos), "bytes": size, "words": words, "processes": len(pids)}

            async def status_of_next() -> None:
                nonlocal agents
                info = next(agents, None)
                if info is None:
                    agents = iter(infos)
                    info = next(agents)
                if await client.get_agent_status(info) is not AgentStatus.RUNNING:
                    raise AssertionError("not running")

            async def spawn() -> None:
                await client.spawn_remote(_SHORT)

            async def one_round(
                *, operation: str, secs: float = 5.0, count: int = 1, **_: Any
            ) -> dict[str, Any]:
                if operation == "list":
                    running = 0
                    begun = time.perf_counter()
                    for _list in range(count):
                        running = read_every_field(await client.list_remote_agents())
                    took = time.perf_counter() - begun
                    return {"ms": took / count * 1e3, "done": running}
                if operation == "status":
                    return await timed_workers([status_of_next], count=count, in_flight=256)
                if operation == "spawn":
                    figures = await timed_workers([spawn], count=count, in_flight=64)
                    while ((await client.health_check()).active_agents or 0) > len(infos):
                        await asyncio.sleep(0.01)
                    return figures
                if operation == "idle":
                    used = cpu_secs(pids)
                    await asyncio.sleep(secs)
                    used = cpu_secs(pids) - used
                    return {"percent": used / secs * 100, "done": len(infos)}
                return {"KB": per_agent / 1e3, "done": len(infos)} | tell

            yield one_round


if __name__ == "__main__":
    drive_async(scale)
