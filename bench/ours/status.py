"""Typed status updates through subscribe_status_updates, from a source that is faster.

The source is the one in C: it publishes what was encoded before, so that the subscriber is
what is measured. Everything else (the health check, the snapshot) is a real server's.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from descartes_fast import AgentStatus, StatusUpdate, ZmqClient, ZmqRunnerConfig
from descartes_fast.subscription import Subscription

from ..driver import AsyncRound, drive_async
from .server import OurServer


async def take(subscription: Subscription[StatusUpdate], count: int) -> int:
    """Take that many updates, looking at whose and what they are; return how many were right."""
    left = count
    right = 0
    last_agent = None
    async for update in subscription:
        if update.status is AgentStatus.RUNNING and update.agent_id != last_agent:
            right += 1
        last_agent = update.agent_id
        left -= 1
        if not left:
            break
    return right


@asynccontextmanager
async def updates() -> AsyncIterator[AsyncRound]:
    source_program, frames = sys.argv[1:3]
    async with AsyncExitStack() as stack:
        server = stack.enter_context(OurServer())
        source = stack.enter_context(
            subprocess.Popen(
                [source_program, "source", frames, server.server_id],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert source.stdin is not None
        assert source.stdout is not None
        stack.callback(source.stdin.close)
        config = ZmqRunnerConfig(
            endpoint=server.endpoint, pub_endpoint=source.stdout.readline().strip()
        )
        subscriptions: list[Subscription[StatusUpdate]] = []

        async def one_round(*, count: int, subscribers: int) -> dict[str, Any]:
            while len(subscriptions) < subscribers:
                client = await stack.enter_async_context(ZmqClient(config))
                subscriptions.append(await client.subscribe_status_updates())
            begun = time.perf_counter()
            print("go", file=source.stdin, flush=True)
            right = await asyncio.gather(*(take(each, count) for each in subscriptions))
            secs = time.perf_counter() - begun
            assert not any(each.dropped for each in subscriptions)
            return {"rate": count * subscribers / secs, "done": sum(right)}

        yield one_round


if __name__ == "__main__":
    drive_async(updates)
