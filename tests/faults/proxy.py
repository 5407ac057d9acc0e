"""A TCP proxy between clients and a server: it cuts, delays and freezes, and loses whole replies.

It reads ZMTP (3.0 and 3.1, NULL mechanism) as far as it must to know where a message begins and
ends: https://rfc.zeromq.org/spec/23/. Commands of the protocol itself always pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Self

__all__ = ["Proxy"]

_GREETING_BYTES = 64
_MORE, _LONG, _COMMAND = 1, 2, 4
_READ_BYTES = 65_536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, zero seconds

Loses = Callable[[list[bytes]], bool]
"""Told each message from the server as its frames; says whether it is lost."""


class Proxy:
    """Forwards TCP connections on ``endpoint`` to a server's endpoint, ``tcp://`` or ``ipc://``.

    While the server is gone, connections are taken and closed at once, as by a port forward.
    """

    def __init__(self, target: str, loses: Loses | None = None) -> None:
        self.loses = loses
        self.delay_secs = 0.0
        """How long each message, and each piece of a request, is held back."""
        self.passed = 0
        self.lost = 0
        self._target = target
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.endpoint = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every connection, in the middle of whatever it carries."""
        for writer in list(self._writers):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET
                )
            writer.transport.abort()

    def freeze(self) -> None:
        """Let nothing pass; connections stay, and new ones are taken: all half open."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let what was held back pass."""
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await self._connect()
            self._writers.add(far)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward_requests(reader, far))
                group.create_task(self._forward_replies(far_reader, writer))
        except (OSError, asyncio.IncompleteReadError, ExceptionGroup):
            pass  # one end has closed: so does the other
        finally:
            for end in (writer, far):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        scheme, _, rest = self._target.partition("://")
        if scheme == "ipc":
            return await asyncio.open_unix_connection(rest)
        host, _, port = rest.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _forward_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_READ_BYTES):
            await self._pass(writer, data)
        raise ConnectionResetError("the other end has closed")

    async def _forward_replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        left = _GREETING_BYTES  # in pieces: each end waits for the other's first ones
        while left:
            data = await reader.read(left)
            if not data:
                raise ConnectionResetError("the other end has closed")
            left -= len(data)
            await self._pass(writer, data)
        while True:
            raw, frames = await _next_message(reader)
            if frames and self.loses is not None and self.loses(frames):
                self.lost += 1
                continue
            self.passed += bool(frames)
            await self._pass(writer, raw)

    async def _pass(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self.delay_secs:
            await asyncio.sleep(self.delay_secs)
        await self._flowing.wait()
        writer.write(data)
        await writer.drain()


async def _next_message(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    """Return a message's bytes and its frames; of a protocol command, no frames."""
    raw, frames = b"", []
    while True:
        flags = await reader.readexactly(1)
        length = await reader.readexactly(8 if flags[0] & _LONG else 1)
        body = await reader.readexactly(int.from_bytes(length, "big"))
        raw += flags + length + body
        if flags[0] & _COMMAND:
            return raw, []
        frames.append(body)
        if not flags[0] & _MORE:
            return raw, frames
