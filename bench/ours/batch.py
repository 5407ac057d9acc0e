"""batch_control over many live agents: agents a second, one batch after the other."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from descartes_fast import AgentStatus, BatchControlResponse, connect

from ..driver import AsyncRound, drive_async, percentiles
from .server import OurServer, spawn_live

# Delivered and ignored by default, so the agents sleep on.
_SIGNAL = "SIGURG"


def read(answer: BatchControlResponse, operation: str) -> int:
    """Return how many agents did it; a status is looked at for each."""
    if operation == "signal":
        return answer.successful
    return sum(result.status is AgentStatus.RUNNING for result in answer.results)


@asynccontextmanager
async def batches() -> AsyncIterator[AsyncRound]:
    with OurServer() as server:
        async with connect(server.endpoint) as client:
            infos, words = await spawn_live(client, int(sys.argv[1]))
            if len(infos) < int(sys.argv[1]):
                raise RuntimeError(words)
            agents = [info.id for info in infos]

            async def one_round(*, batches: int, operation: str) -> dict[str, Any]:
                payload = {"signal": _SIGNAL} if operation == "signal" else None
                took = []
                successful = 0
                for _ in range(batches):
                    begun = time.perf_counter()
                    successful += read(
                        await client.batch_control(agents, operation, payload), operation
                    )
                    took.append(time.perf_counter() - begun)
                return {
                    "rate": len(agents) * batches / sum(took),
                    "done": successful,
                    **percentiles(took),
                }

            yield one_round


if __name__ == "__main__":
    drive_async(batches)
