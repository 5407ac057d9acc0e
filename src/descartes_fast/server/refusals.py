"""The answer that says no, in the response type of each request."""

from __future__ import annotations

import logging
from uuid import UUID

from .._core import (
    ZMQ_PROTOCOL_VERSION,
    AgentStatus,
    BatchAgentResult,
    BatchControlCommand,
    BatchControlResponse,
    CommandResponse,
    ControlCommand,
    CustomActionRequest,
    HealthCheckRequest,
    HealthCheckResponse,
    ListAgentsRequest,
    ListAgentsResponse,
    OutputQueryRequest,
    OutputQueryResponse,
    SpawnRequest,
    SpawnResponse,
)
from ..errors import AgentError, AgentTimeout, ExecutionError, MessageTooLarge, UsageError, to_wire

__all__ = [
    "MAX_BATCH_AGENTS",
    "NIL_ID",
    "Request",
    "Response",
    "as_agent_error",
    "refusal",
    "refusal_of_unknown",
    "words_of",
]

_log = logging.getLogger(__name__)

NIL_ID = UUID(int=0)
"""The agent id of what is about no agent."""

MAX_BATCH_AGENTS = 10_000
"""As many results, each with an error of 200 characters, fit into a message."""

Request = (
    SpawnRequest
    | ControlCommand
    | ListAgentsRequest
    | HealthCheckRequest
    | CustomActionRequest
    | BatchControlCommand
    | OutputQueryRequest
)
Response = (
    SpawnResponse
    | CommandResponse
    | ListAgentsResponse
    | HealthCheckResponse
    | BatchControlResponse
    | OutputQueryResponse
)

_LONGEST_WORDS = 2000  # an error may quote what a client sent; not all of it
_LONGEST_WORDS_OF_ONE = 200  # of many, in the reply to a batch


def refusal(
    request: Request, error: AgentError, *, server_id: str, status: AgentStatus | None = None
) -> Response:
    """Return the response that refuses ``request``; ``status`` is the agent's, if known."""
    text = words_of(error)
    match request:
        case SpawnRequest():
            return SpawnResponse(
                request_id=request.request_id, success=False, error=text, server_id=server_id
            )
        case ControlCommand() | CustomActionRequest():
            return CommandResponse(
                request_id=request.request_id,
                agent_id=request.agent_id,
                success=False,
                status=status,
                error=text,
            )
        case ListAgentsRequest():
            return ListAgentsResponse(request_id=request.request_id, success=False, error=text)
        case OutputQueryRequest():
            return OutputQueryResponse(
                request_id=request.request_id, agent_id=request.agent_id, success=False, error=text
            )
        case HealthCheckRequest():
            return HealthCheckResponse(
                request_id=request.request_id,
                healthy=False,
                protocol_version=ZMQ_PROTOCOL_VERSION,
                metadata={"server_id": server_id, "reason": text},
            )
        case BatchControlCommand():
            # This response has no error of its own: each agent's result says it. Of none, or
            # of more than a batch may have, one result says it for all.
            refused = request.agent_ids
            if not 0 < len(refused) <= MAX_BATCH_AGENTS:
                refused = (NIL_ID,)
            text = words_of(error, of_many=True)
            return BatchControlResponse(
                request_id=request.request_id,
                success=False,
                results=[
                    BatchAgentResult(agent_id=agent_id, success=False, error=text)
                    for agent_id in refused
                ],
                successful=0,
                failed=len(request.agent_ids),
            )


def refusal_of_unknown(request_id: str, error: AgentError) -> CommandResponse:
    """Return the answer to a message that is no request of this protocol."""
    return CommandResponse(
        request_id=request_id, agent_id=NIL_ID, success=False, error=words_of(error)
    )


def as_agent_error(error: Exception) -> AgentError:
    """Return the error to put on the wire for anything that was raised."""
    if isinstance(error, AgentError):
        return error
    if isinstance(error, TimeoutError):
        return AgentTimeout(str(error) or "it took longer than it may")
    if isinstance(error, (UsageError, MessageTooLarge)):
        return ExecutionError(f"it was done, but the answer cannot be sent: {error}")
    _log.error("a request failed unexpectedly", exc_info=error)
    return ExecutionError(f"unexpected {type(error).__name__}")


def words_of(error: AgentError, *, of_many: bool = False) -> str:
    """Return an error's text for the wire, shortened to what the response has room for."""
    text = to_wire(error)
    most = _LONGEST_WORDS_OF_ONE if of_many else _LONGEST_WORDS
    if len(text) > most:
        text = text[:most] + "..."
    # File names come with surrogates for what is not UTF-8; the wire has no place for them.
    return text.encode("utf-8", "backslashreplace").decode()
