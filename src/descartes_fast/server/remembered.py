"""What is remembered of long replies: only what the one who asks again cannot be told otherwise.

The bytes of a consuming read are in the output, and the agents of a batch in the repeated request:
however much is read and however many are asked, neither the memory of replies nor the journal
grows with it. A repeat gets the reply made again, the same to the byte; that of a read as long as
the output is there.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack  # type: ignore[import-untyped]

from .._core import (
    AgentStatus,
    BatchAgentResult,
    BatchControlCommand,
    BatchControlResponse,
    CommandResponse,
    ControlCommand,
    ControlCommandType,
    LogStreamType,
)
from .._core.batches import common_status
from ..errors import ExecutionError, OutputGone
from .agent import Agent
from .reading import read_answer
from .refusals import Request, Response
from .registry import Registry

__all__ = ["in_short", "is_short", "made_again"]

_MARK = b"\xc1"  # in no MessagePack: no reply begins with it
_SHORT_BYTES = 1024  # such a reply is kept as it is, whatever becomes of the output

_STREAMS = {
    ControlCommandType.READ_STDOUT: LogStreamType.STDOUT,
    ControlCommandType.READ_STDERR: LogStreamType.STDERR,
}


def in_short(response: Response, reply: bytes, registry: Registry, *, is_read: bool) -> bytes:
    """Return what is to be remembered of ``response``, sent as ``reply``: a part, or all of it.

    ``is_read`` says that it is the answer to a consuming read.
    """
    if len(reply) <= _SHORT_BYTES:
        return reply
    told: Any = None
    if isinstance(response, BatchControlResponse):
        told = common_status(response)
    elif is_read and isinstance(response, CommandResponse):
        told = _told_of_read(response, registry.find(response.agent_id))
    return reply if told is None else _MARK + bytes(msgpack.packb(told))


def is_short(remembered: bytes) -> bool:
    """Tell whether the reply is to be made again."""
    return remembered.startswith(_MARK)


def made_again(remembered: bytes, request: Request, registry: Registry) -> Response:
    """Return the response to a repeat.

    Raises ``NotFound`` and ``ExecutionError`` for a read whose agent or whose bytes are gone.
    """
    told = msgpack.unpackb(remembered[len(_MARK) :])
    if isinstance(request, BatchControlCommand):
        return _batch_again(told, request)
    assert isinstance(request, ControlCommand)
    return _read_again(told, request, registry.get(request.agent_id))


def _batch_again(status: str, request: BatchControlCommand) -> BatchControlResponse:
    results = [
        BatchAgentResult(agent_id=agent_id, success=True, status=AgentStatus(status))
        for agent_id in request.agent_ids
    ]
    return BatchControlResponse(
        request_id=request.request_id,
        success=True,
        results=results,
        successful=len(results),
        failed=0,
    )


def _told_of_read(response: CommandResponse, agent: Agent | None) -> tuple[Any, ...] | None:
    """Return what a read told beside its bytes.

    ``None`` if the agent waits for its readers: what was read is trimmed next there.
    """
    if agent is None or agent.output_policy == "wait":
        return None
    data: dict[str, Any] = response.data
    status = None if response.status is None else response.status.value
    return data["offset"], data["bytes"], data["encoding"], data["eof"], status


def _read_again(told: list[Any], request: ControlCommand, agent: Agent) -> CommandResponse:
    offset, count, encoding, eof, status = told
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
