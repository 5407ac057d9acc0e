"""Status updates from our server's own publishing path to one typed subscription."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from descartes_fast import connect

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
        async with connect(endpoint) as client:
            subscription = await client.subscribe_status_updates()

            async def one_round(*, count: int) -> dict[str, Any]:
                begun = time.perf_counter()
                orders.write(b"g")
                right = 0
                for _ in range(count // CREDIT):
                    right += await take(subscription, CREDIT)
                    orders.write(b".")
                secs = time.perf_counter() - begun
                assert not subscription.dropped
                return {"rate": count / secs, "done": right}

            yield one_round
        server.stdin.close()


if __name__ == "__main__":
    drive_async(updates)
