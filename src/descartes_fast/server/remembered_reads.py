"""A consuming read is remembered by what it told, without the bytes: those are in the output.

However much is read, neither the memory of replies nor the journal grows with it. A repeat gets
the reply made again, the same to the byte, as long as the output is there.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack  # type: ignore[import-untyped]

from .._core import AgentStatus, CommandResponse, ControlCommand, ControlCommandType, LogStreamType
from ..errors import ExecutionError, OutputGone
from .agent import Agent
from .reading import read_answer

__all__ = ["is_without_bytes", "made_again", "without_bytes"]

_MARK = b"\xc1"  # in no MessagePack: no reply begins with it
_SHORT_BYTES = 1024  # such a reply is kept as it is, whatever becomes of the output

_STREAMS = {
    ControlCommandType.READ_STDOUT: LogStreamType.STDOUT,
    ControlCommandType.READ_STDERR: LogStreamType.STDERR,
}


def without_bytes(response: CommandResponse, reply: bytes, agent: Agent | None) -> bytes:
    """Return what is to be remembered of a consuming read's ``response``, sent as ``reply``.

    That is all of it if it is short, and if the agent waits for its readers: what was read is
    trimmed next there.
    """
    if len(reply) <= _SHORT_BYTES or agent is None or agent.output_policy == "wait":
        return reply
    data: dict[str, Any] = response.data
    status = None if response.status is None else response.status.value
    told = (data["offset"], data["bytes"], data["encoding"], data["eof"], status)
    return _MARK + bytes(msgpack.packb(told))


def is_without_bytes(remembered: bytes) -> bool:
    """Tell whether the reply is to be made again."""
    return remembered.startswith(_MARK)


def made_again(remembered: bytes, request: ControlCommand, agent: Agent) -> CommandResponse:
    """Return the response to a repeat. Raises ``ExecutionError`` if its bytes were trimmed."""
    offset, count, encoding, eof, status = msgpack.unpackb(remembered[len(_MARK) :])
    data = b""
    with contextlib.suppress(OutputGone):
        data = agent.output(_STREAMS[request.command_type]).read(offset, count)
    if len(data) != count:
        raise ExecutionError(
            f"this was read before: bytes {offset} to {offset + count}, and they were trimmed since"
        )
    return CommandResponse(
        request_id=request.request_id,
        agent_id=agent.id,
        success=True,
        status=None if status is None else AgentStatus(status),
        data=read_answer(data, offset, encoding, eof=eof),
    )
