"""Reading an agent's output: from an offset, or from the cursor that all readers share."""

from __future__ import annotations

import asyncio
from typing import Any

from .._core import LogStreamType
from .._core.base64 import encode_base64
from ..errors import OutputGone
from .agent import Agent
from .payloads import ReadPayload

__all__ = ["read_answer", "read_now", "read_when_there"]

_LONGEST_CHARACTER = 4


def read_now(agent: Agent, stream: LogStreamType, asked: ReadPayload) -> dict[str, Any]:
    """Return what is there, at once; ``data`` is ``None`` if that is nothing.

    A consuming read (no offset) moves the agent's cursor. If the bytes at the offset were
    trimmed, reading begins at the first that is left: ``offset`` in the answer says where.
    """
    output = agent.output(stream)
    offset = agent.cursors[stream] if asked.offset is None else asked.offset
    offset, data = _read(output, offset, asked.max_bytes)
    if asked.encoding == "text" and (cut := _cut_character(data)):
        # Part of a character waits for the rest of it, unless there will be none.
        if len(data) == cut and offset + cut < output.end:
            offset, data = _read(output, offset, _LONGEST_CHARACTER)
            cut = _cut_character(data)
        if len(data) > cut or not agent.has_ended:
            data = data[: len(data) - cut]
    following = offset + len(data)
    if asked.offset is None:
        agent.cursors[stream] = following
    return read_answer(
        data, offset, asked.encoding, eof=agent.has_ended and following >= output.end
    )


def read_answer(data: bytes, offset: int, encoding: str, *, eof: bool) -> dict[str, Any]:
    """Return the data of the response to a read that found ``data`` at ``offset``."""
    return {
        "data": _encoded(data, encoding) if data else None,
        "encoding": encoding,
        "bytes": len(data),
        "offset": offset,
        "next_offset": offset + len(data),
        "eof": eof,
    }


async def read_when_there(
    agent: Agent, stream: LogStreamType, asked: ReadPayload, longest_wait_secs: float
) -> dict[str, Any]:
    """Return what :func:`read_now` does once that is something, or after ``wait_secs``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(asked.wait_secs, longest_wait_secs)
    while True:
        answer = read_now(agent, stream, asked)
        left = deadline - loop.time()
        if answer["data"] is not None or agent.has_ended or left <= 0:
            return answer
        try:
            async with asyncio.timeout(left):
                await agent.wait_for_news()
        except TimeoutError:
            return read_now(agent, stream, asked)


def _read(output: Any, offset: int, max_bytes: int) -> tuple[int, bytes]:
    """Return the offset at which reading began, and the bytes there."""
    while True:
        try:
            return offset, output.read(offset, max_bytes)
        except OutputGone as gone:
            if gone.end <= offset:  # no progress: cannot be, and must not loop
                raise
            offset = gone.end


def _cut_character(data: bytes) -> int:
    """Return how many bytes at the end of ``data`` are a UTF-8 character that goes on after it."""
    for back in range(1, min(_LONGEST_CHARACTER, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4
        return back if 0xC2 <= byte <= 0xF4 and length > back else 0
    return 0


def _encoded(data: bytes, encoding: str) -> str | list[int]:
    if encoding == "base64":
        return encode_base64(data)
    if encoding == "bytes":
        return list(data)
    return data.decode("utf-8", "replace")
