"""Log bytes over zmq.asyncio and msgpack, straight from the pipe: nothing is kept anywhere."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import zmq
import zmq.asyncio

from ..driver import AsyncRound, drive_async


@asynccontextmanager
async def logs() -> AsyncIterator[AsyncRound]:
    command = [sys.executable, "-m", "bench.peers.zmq_log_server"]
    with (
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server,
        zmq.asyncio.Context() as context,
        context.socket(zmq.SUB) as socket,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        socket.subscribe(b"")
        socket.connect(server.stdout.readline().strip())

        async def one_round(*, path: str, agents: int) -> dict[str, Any]:
            expected = Path(path).read_bytes()
            received: dict[int, list[bytes]] = defaultdict(list)
            left = len(expected) * agents
            print(path, agents, file=server.stdin, flush=True)
            assert server.stdout is not None
            server.stdout.readline()
            await asyncio.sleep(0.2)  # nothing says when a subscription has arrived
            begun = time.perf_counter()
            print("go", file=server.stdin, flush=True)
            while left > 0:
                _, _, body = (await socket.recv()).partition(b"\0")
                message = msgpack.unpackb(body)
                received[message["agent"]].append(message["data"])
                left -= len(message["data"])
            secs = time.perf_counter() - begun
            whole = [b"".join(received[number]) == expected for number in range(agents)]
            return {
                "rate": len(expected) * agents / secs / 1e6, "done": len(expected) * sum(whole)
            }  # fmt: skip

        yield one_round
        server.stdin.close()


if __name__ == "__main__":
    drive_async(logs)
