"""Status updates from our server's own publishing path to typed subscriptions."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from descartes_fast import StatusUpdate, connect
from descartes_fast.subscription import Subscription

from ..driver import AsyncRound, drive_async
from .status import take
from .status_server import CREDIT


@asynccontextmanager
async def updates() -> AsyncIterator[AsyncRound]:
    command = [sys.executable, "-m", "bench.ours.status_server", sys.argv[1]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        orders = server.stdin.raw  # type: ignore[attr-defined]
        endpoint = server.stdout.readline().decode().strip()
        async with AsyncExitStack() as clients:
            subscriptions: list[Subscription[StatusUpdate]] = []

            async def one_round(*, count: int, subscribers: int) -> dict[str, Any]:
                while len(subscriptions) < subscribers:
                    client = await clients.enter_async_context(connect(endpoint))
                    subscriptions.append(await client.subscribe_status_updates())
                begun = time.perf_counter()
                orders.write(b"g")
                right = 0
                for _ in range(count // CREDIT):
                    right += sum(
                        await asyncio.gather(*(take(each, CREDIT) for each in subscriptions))
                    )
                    orders.write(b".")
                secs = time.perf_counter() - begun
                assert not any(each.dropped for each in subscriptions)
                return {"rate": count * subscribers / secs, "done": right}

            yield one_round
        server.stdin.close()


if __name__ == "__main__":
    drive_async(updates)
