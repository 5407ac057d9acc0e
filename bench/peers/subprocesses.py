"""asyncio.create_subprocess_exec with pipes, on asyncio's loop or on uvloop; nothing is kept."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..driver import AsyncRound, drive_async, timed_workers


@asynccontextmanager
async def spawns() -> AsyncIterator[AsyncRound]:
    async def one_round(*, count: int, in_flight: int) -> dict[str, Any]:
        ends: list[asyncio.Task[tuple[bytes, bytes]]] = []

        async def spawn() -> None:
            process = await asyncio.create_subprocess_exec(
                "true", stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
            ends.append(asyncio.create_task(process.communicate()))

        figures = await timed_workers([spawn], count=count, in_flight=in_flight)
        await asyncio.gather(*ends)
        return figures

    yield one_round


if __name__ == "__main__":
    factory = asyncio.new_event_loop if sys.argv[1] == "asyncio" else None
    drive_async(spawns, loop_factory=factory)
