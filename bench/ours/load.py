"""A spawn storm and a log flood on a server, from a client of its own, until stdin ends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import uvloop

from descartes_fast import AgentConfig, AgentError, connect


async def load(endpoint: str) -> None:
    spawned = 0
    bytes_read = 0
    async with connect(endpoint) as client:
        config = AgentConfig(name="true", model_backend="true", task="x")
        flood = await client.spawn_remote(
            AgentConfig(name="flood", model_backend="sh", task="exec yes 'a line of a flood'")
        )

        async def storm() -> None:
            nonlocal spawned
            while True:
                await client.spawn_remote(config)
                spawned += 1

        async def read_flood() -> None:
            nonlocal bytes_read
            async with await client.stream_agent_logs(flood) as logs:
                while True:
                    try:
                        async for message in logs:
                            bytes_read += len(message.data)
                    except AgentError:  # trimmed before it could be read: it is a flood
                        continue

        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def hear() -> None:
            if not os.read(0, 64) and not ended.done():
                ended.set_result(None)

        loop.add_reader(0, hear)
        tasks = [asyncio.create_task(storm()) for _ in range(64)]
        tasks.append(asyncio.create_task(read_flood()))
        print("{}", flush=True)
        begun = time.perf_counter()
        await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        secs = time.perf_counter() - begun
        loop.remove_reader(0)
        for task in tasks:
            task.cancel()
        failures = [
            failure
            for failure in await asyncio.gather(*tasks, return_exceptions=True)
            if not isinstance(failure, asyncio.CancelledError)
        ]
        await client.kill_agent(flood)
        words = {"spawns/s": spawned / secs, "log MB/s": bytes_read / secs / 1e6}
        print(json.dumps(words | {"failures": [repr(each) for each in failures]}), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(load(sys.argv[1]))
