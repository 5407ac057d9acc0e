"""Publishes what processes print: asyncio subprocesses, a PUB of zmq.asyncio, msgpack."""

from __future__ import annotations

import asyncio
import sys

import msgpack
import uvloop
import zmq
import zmq.asyncio

from .lossless import publish, publishing_socket

_CHUNK_BYTES = 64 * 1024


async def serve() -> None:
    with zmq.asyncio.Context() as context, publishing_socket(context) as socket:
        print(socket.get_string(zmq.LAST_ENDPOINT), flush=True)

        async def follow(number: int, process: asyncio.subprocess.Process) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            offset = 0
            while data := await process.stdout.read(_CHUNK_BYTES):
                message = {"agent": number, "stream": "stdout", "offset": offset, "data": data}
                await publish(socket, b"%d" % number, msgpack.packb(message))
                offset += len(data)
            await process.wait()

        while line := await asyncio.to_thread(sys.stdin.readline):
            path, count = line.split()
            processes = [
                await asyncio.create_subprocess_exec(
                    "sh", "-c", f"read line; exec cat {path}",
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                )
                for _ in range(int(count))
            ]  # fmt: skip
            print("started", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            await asyncio.gather(*(follow(*pair) for pair in enumerate(processes)))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
