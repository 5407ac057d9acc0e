"""Status updates over zmq.asyncio: a SUB socket, msgpack or msgspec, a dataclass each.

Measured with the source in C as ours is, or with a PUB of zmq.asyncio.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import msgpack
import zmq
import zmq.asyncio

from ..driver import AsyncRound, absent, drive_async
from .messages import Update


def typed_by_msgpack(body: bytes) -> Update:
    return Update(**msgpack.unpackb(body))


def typed_by_msgspec() -> Callable[[bytes], Any]:
    try:
        import msgspec
    except ImportError:
        absent("msgspec is not installed")

    class Typed(msgspec.Struct):
        agent_id: str
        update_type: str
        status: str
        message: str | None
        data: dict[str, Any]
        timestamp: int

    return msgspec.msgpack.Decoder(Typed).decode


async def take(socket: zmq.asyncio.Socket, decode: Callable[[bytes], Any], count: int) -> int:
    right = 0
    last_agent = None
    for _ in range(count):
        _, _, body = (await socket.recv()).partition(b"\0")
        update = decode(body)
        if update.status == "running" and update.agent_id != last_agent:
            right += 1
        last_agent = update.agent_id
    return right


@asynccontextmanager
async def updates() -> AsyncIterator[AsyncRound]:
    codec, *command = sys.argv[1:]
    decode = typed_by_msgspec() if codec == "msgspec" else typed_by_msgpack
    with ExitStack() as stack:
        context = stack.enter_context(zmq.asyncio.Context())
        source = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert source.stdin is not None
        assert source.stdout is not None
        stack.callback(source.stdin.close)
        endpoint = source.stdout.readline().strip()
        sockets: list[zmq.asyncio.Socket] = []

        async def one_round(*, count: int, subscribers: int = 1) -> dict[str, Any]:
            while len(sockets) < subscribers:
                socket = stack.enter_context(context.socket(zmq.SUB))
                socket.subscribe(b"status/")
                socket.connect(endpoint)
                sockets.append(socket)
            await asyncio.sleep(0.2)  # nothing says when a subscription has arrived
            begun = time.perf_counter()
            print("go", file=source.stdin, flush=True)
            right = await asyncio.gather(*(take(each, decode, count) for each in sockets))
            secs = time.perf_counter() - begun
            return {"rate": count * subscribers / secs, "done": sum(right)}

        yield one_round


if __name__ == "__main__":
    drive_async(updates)
