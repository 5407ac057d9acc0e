"""Log bytes from agents to one subscription: ours from the agent's pipe to ``async for``."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from descartes_fast import AgentConfig, AgentInfo, LogStreamMessage, ZmqClient, connect

from ..driver import AsyncRound, drive_async
from .server import OurServer

_MIB = 1024 * 1024
_SETTINGS = {
    "output_limit_bytes": 1024 * _MIB,
    "state_limit_bytes": 4096 * _MIB,
    "retain_agents": 200,
}


async def spawn_waiting(client: ZmqClient, path: str, count: int) -> list[AgentInfo]:
    """Start agents that print a file as soon as they read a line."""
    config = AgentConfig(name="cat", model_backend="waiting", task=f"read line; exec cat {path}")
    answers = await client.spawn_many([config] * count)
    failures = [answer for answer in answers if not isinstance(answer, AgentInfo)]
    if failures:
        raise failures[0]
    return [answer for answer in answers if isinstance(answer, AgentInfo)]


def joined(messages: list[LogStreamMessage]) -> bytes:
    """Return what one agent printed. Raises if a byte is missing or comes twice."""
    position = 0
    for message in messages:
        if message.sequence != position:
            raise AssertionError(f"a gap: {position} to {message.sequence}")
        position += len(message.data)
    return b"".join(message.data for message in messages)


@asynccontextmanager
async def logs() -> AsyncIterator[AsyncRound]:
    with OurServer(**_SETTINGS) as server:
        async with connect(server.endpoint) as client:

            async def one_round(*, path: str, agents: int) -> dict[str, Any]:
                expected = Path(path).read_bytes()
                infos = await spawn_waiting(client, path, agents)
                # To all agents: from now on, else those of earlier rounds would come again.
                chosen, from_offset = (infos[0], 0) if agents == 1 else (None, None)
                received: dict[UUID, list[LogStreamMessage]] = defaultdict(list)
                left = len(expected) * agents
                subscription = await client.stream_agent_logs(chosen, from_offset=from_offset)
                async with subscription:
                    begun = time.perf_counter()
                    await asyncio.gather(
                        *(client.write_agent_stdin(info, b"\n", close=True) for info in infos)
                    )
                    async for message in subscription:
                        received[message.agent_id].append(message)
                        left -= len(message.data)
                        if left <= 0:
                            break
                    secs = time.perf_counter() - begun
                whole = [joined(received[info.id]) == expected for info in infos]
                await asyncio.gather(*(client.wait_agent(info) for info in infos))
                return {
                    "rate": len(expected) * agents / secs / 1e6,
                    "done": len(expected) * sum(whole),
                }

            yield one_round


if __name__ == "__main__":
    drive_async(logs)
