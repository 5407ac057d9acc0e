"""An agent's streams: its output read or followed, our stdin passed on to its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

from .._core import ControlCommandType, LogStreamMessage, LogStreamType
from ..client import ZmqClient
from ..errors import DescartesError, InvalidState, OutputGone, Unsupported, WouldBlock
from ..subscription import Subscription
from . import screen

__all__ = ["Show", "feed_stdin", "follow", "read_stream", "tail_offset"]

Show = Callable[[LogStreamMessage], None]

_PIECE_BYTES = 65_536
_READS = {
    LogStreamType.STDOUT: ControlCommandType.READ_STDOUT,
    LogStreamType.STDERR: ControlCommandType.READ_STDERR,
}


async def follow(
    messages: Subscription[LogStreamMessage], show: Show, *, only: LogStreamType | None = None
) -> None:
    """Show an agent's output, or ``only`` one of its streams, as it grows, to its last byte."""
    ended = False
    while not ended:
        try:
            async for message in messages:
                if only in (None, message.stream_type):
                    show(message)
            ended = True
        except OutputGone as error:
            if only is None or error.stream in (None, only.value):
                _tell_loss(error.end - error.start)


def _tell_loss(count: int) -> None:
    screen.complain(f"{count} bytes of output are gone: the server keeps only the latest")


async def read_stream(
    client: ZmqClient, agent_id: UUID, stream: LogStreamType, offset: int
) -> AsyncIterator[LogStreamMessage]:
    """Yield one stream's pieces from ``offset`` to its present end.

    Reads at offsets take nothing away from other readers.
    """
    end = await stream_length(client, agent_id, stream)
    while offset < end:
        piece = await _read(client, agent_id, stream, offset, min(_PIECE_BYTES, end - offset))
        if piece["offset"] > offset:
            _tell_loss(piece["offset"] - offset)
            offset = piece["offset"]
        if data := base64.b64decode(piece["data"] or ""):
            yield LogStreamMessage(
                agent_id=agent_id, stream_type=stream, data=data, sequence=offset
            )
            offset += len(data)
        else:
            return


async def tail_offset(client: ZmqClient, agent_id: UUID, stream: LogStreamType, lines: int) -> int:
    """Return the offset at which the last ``lines`` lines of a stream begin."""
    end = position = await stream_length(client, agent_id, stream)
    wanted = lines
    if lines == 0:
        return end
    while position > 0:
        begin = max(0, position - _PIECE_BYTES)
        piece = await _read(client, agent_id, stream, begin, position - begin)
        data = base64.b64decode(piece["data"] or "")[: position - piece["offset"]]
        search = len(data) - 1 if position == end and data.endswith(b"\n") else len(data)
        while (found := data.rfind(b"\n", 0, search)) >= 0:
            wanted -= 1
            if wanted == 0:
                return int(piece["offset"]) + found + 1
            search = found
        if piece["offset"] > begin or not data:
            return int(piece["offset"])  # what was before is gone
        position = begin
    return 0


async def stream_length(client: ZmqClient, agent_id: UUID, stream: LogStreamType) -> int:
    """Return how many bytes an agent has written to a stream."""
    response = await client.control_agent(agent_id, ControlCommandType.GET_STATUS)
    return int(_with(response.data, f"{stream.value}_bytes")[f"{stream.value}_bytes"])


async def _read(
    client: ZmqClient, agent_id: UUID, stream: LogStreamType, offset: int, limit: int
) -> dict[str, Any]:
    payload = {"offset": offset, "max_bytes": limit, "encoding": "base64"}
    response = await client.control_agent(agent_id, _READS[stream], payload)
    return _with(response.data, "data", "offset")


def _with(data: Any, *names: str) -> dict[str, Any]:
    """Return the data of a response if it has these fields; Rust's server sends others."""
    if isinstance(data, dict) and all(name in data for name in names):
        return data
    raise Unsupported("this server cannot read output at an offset; use attach, or query")


async def feed_stdin(client: ZmqClient, agent_id: UUID) -> None:
    """Pass our stdin to an agent until it ends, then close the agent's.

    What goes wrong is told and ends only this: the agent's output goes on.
    """
    try:
        async for data in _stdin_pieces():
            await _write_patiently(client, agent_id, data)
        with contextlib.suppress(InvalidState):  # there is nothing to close
            await client.write_agent_stdin(agent_id, b"", close=True)
    except DescartesError as error:
        screen.complain(f"stdin: {error}")


async def _write_patiently(client: ZmqClient, agent_id: UUID, data: bytes) -> None:
    """Write to an agent that may not be reading yet: again, until there is room."""
    delay = 0.02
    while True:
        try:
            await client.write_agent_stdin(agent_id, data)
        except WouldBlock:
            await asyncio.sleep(delay)
            delay = min(delay * 2, 1.0)
        else:
            return


async def _stdin_pieces() -> AsyncIterator[bytes]:
    """Yield what arrives on our stdin.

    A thread reads it, since a file cannot be polled; a daemon, since a read of a terminal
    cannot be interrupted.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(maxsize=4)

    def read() -> None:
        try:
            while data := os.read(sys.stdin.fileno(), _PIECE_BYTES):
                asyncio.run_coroutine_threadsafe(pieces.put(data), loop).result()
            asyncio.run_coroutine_threadsafe(pieces.put(b""), loop).result()
        except (OSError, RuntimeError, asyncio.CancelledError):
            return  # the loop is closed: nobody waits for more

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while data := await pieces.get():
        yield data
