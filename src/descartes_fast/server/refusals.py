"""The answer that says no, in the response type of each request."""

from __future__ import annotations

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
from ..errors import AgentError, to_wire

__all__ = ["NIL_ID", "Request", "Response", "refusal", "refusal_of_unknown"]

NIL_ID = UUID(int=0)

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


def refusal(
    request: Request, error: AgentError, *, server_id: str, status: AgentStatus | None = None
) -> Response:
    """Return the response that refuses ``request``; ``status`` is the agent's, if known."""
    text = _text(error)
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
            # This response has no error of its own: each agent's result says it.
            return BatchControlResponse(
                request_id=request.request_id,
                success=False,
                results=[
                    BatchAgentResult(agent_id=agent_id, success=False, error=text)
                    for agent_id in request.agent_ids
                ],
                successful=0,
                failed=len(request.agent_ids),
            )


def refusal_of_unknown(request_id: str, error: AgentError) -> CommandResponse:
    """Return the answer to a message that is no request of this protocol."""
    return CommandResponse(
        request_id=request_id, agent_id=NIL_ID, success=False, error=_text(error)
    )


def _text(error: AgentError) -> str:
    text = to_wire(error)
    return text if len(text) <= _LONGEST_WORDS else text[:_LONGEST_WORDS] + "..."
