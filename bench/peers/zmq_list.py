"""A list of many agents over zmq.asyncio and msgpack, a dataclass each."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import zmq.asyncio

from ..driver import AsyncRound, drive_async
from .children import child_server
from .messages import Agent
from .zmq_commands import ZmqPeer


@asynccontextmanager
async def lists() -> AsyncIterator[AsyncRound]:
    with (
        child_server("peers.zmq_server", sys.argv[1]) as (port, _),
        zmq.asyncio.Context() as context,
    ):
        async with ZmqPeer(context, port) as peer:

            async def one_round(*, count: int = 1, **_: Any) -> dict[str, Any]:
                running = 0
                begun = time.perf_counter()
                for _list in range(count):
                    answer = await peer.request({"type": "list_agents"})
                    agents = [Agent(**form) for form in answer["agents"]]
                    running = sum(agent.status == "running" for agent in agents)
                took = time.perf_counter() - begun
                return {"ms": took / count * 1e3, "done": running}

            yield one_round


if __name__ == "__main__":
    drive_async(lists)
