"""Every operation as one request and its checked answer, on a connection.

What a server answers is judged here: a refusal raises what its code says, and what differs
with Rust's server (no offsets, plain text) is made equal here.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ._core import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    BatchControlCommand,
    BatchControlResponse,
    CommandResponse,
    ControlCommand,
    ControlCommandType,
    CustomActionRequest,
    HealthCheckRequest,
    HealthCheckResponse,
    ListAgentsRequest,
    ListAgentsResponse,
    LogStreamType,
    OutputQueryRequest,
    OutputQueryResponse,
    SpawnRequest,
    SpawnResponse,
    ZmqOutputStream,
    from_builtins,
)
from ._core.base64 import decode_base64
from .calls import checked_timeout
from .connection import Connection
from .errors import (
    CommunicationError,
    DescartesError,
    ProtocolError,
    SpawnFailed,
    UsageError,
    from_wire,
)
from .profile import ServerProfile, refusal

__all__ = ["AgentDetails", "OutputChunk", "Requests"]

_READ_COMMANDS = {
    LogStreamType.STDOUT: ControlCommandType.READ_STDOUT,
    LogStreamType.STDERR: ControlCommandType.READ_STDERR,
}
# These change nothing. A read from the shared cursor does, and is not among them.
_READ_ONLY = frozenset({ControlCommandType.GET_STATUS, ControlCommandType.QUERY_OUTPUT})
# A server that bounds an operation itself has this long to say that the time is up.
_ANSWER_GRACE_SECS = 0.5


@dataclass(frozen=True, slots=True)
class AgentDetails:
    """The answer to ``get_status``: the state of an agent, and how it ended if it has."""

    agent_id: UUID
    status: AgentStatus
    data: Mapping[str, Any]

    @property
    def seq(self) -> int:
        """The number of the agent's last change of state; 0 where the server counts none."""
        return _number(self.data.get("seq")) or 0

    @property
    def exit_code(self) -> int | None:
        """What the process returned, if it ended by itself."""
        return _number(self.data.get("exit_code"))

    @property
    def signal(self) -> int | None:
        """The signal that ended the process, if one did."""
        return _number(self.data.get("signal"))

    @property
    def info(self) -> AgentInfo | None:
        """The whole of the agent, where the server sent it."""
        form = self.data.get("info")
        return _agent_info(form) if isinstance(form, dict) else None

    def length(self, stream: LogStreamType) -> int:
        """Return how many bytes the agent has written to a stream."""
        return _number(self.data.get(f"{stream.value}_bytes")) or 0


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """Output that was read: its bytes, where they begin, and where to read on."""

    data: bytes
    offset: int
    next_offset: int


class Requests:
    """The operations of a server, over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def profile(self) -> ServerProfile:
        """Who the server is and what it can do. Raises ``CommunicationError`` if unknown."""
        profile = self._connection.profile
        if profile is None:
            raise CommunicationError(f"no server at {self._connection.config.endpoint}")
        return profile

    async def spawn(
        self,
        config: AgentConfig,
        timeout_secs: float | None,
        metadata: Mapping[str, str] | None,
        request_id: str | None,
    ) -> AgentInfo:
        """Start an agent; its process runs when this returns."""
        response = await self._call(
            SpawnRequest(
                request_id=request_id or self._connection.new_request_id(),
                config=config,
                timeout_secs=_whole_secs(timeout_secs),
                metadata=dict(metadata) if isinstance(metadata, Mapping) else metadata,
            ),
            SpawnResponse,
            timeout_secs,
            grace_secs=_ANSWER_GRACE_SECS,
        )
        if not response.success:
            raise from_wire(response.error)
        if response.agent_info is None:
            raise SpawnFailed("the server reports success but no agent")
        info: AgentInfo = response.agent_info
        return info

    async def list(self, filter_status: AgentStatus | None, limit: int | None) -> list[AgentInfo]:
        """Return the server's agents."""
        response = await self._call(
            ListAgentsRequest(
                request_id=self._connection.new_request_id(),
                filter_status=filter_status,
                limit=limit,
            ),
            ListAgentsResponse,
            repeatable=True,
        )
        if not response.success:
            raise from_wire(response.error)
        return list(response.agents)

    async def health(self) -> HealthCheckResponse:
        """Return the server's health. Raises if it is not the server expected."""
        config = self._connection.config
        answer: HealthCheckResponse = await self._call(
            HealthCheckRequest(request_id=self._connection.new_request_id()),
            HealthCheckResponse,
            repeatable=True,
        )
        error = refusal(answer, endpoint=config.endpoint, expected_server_id=config.server_id)
        if error is not None:
            raise error
        return answer

    async def control(
        self,
        agent_id: UUID,
        command_type: ControlCommandType,
        payload: Any = None,
        *,
        timeout_secs: float | None = None,
        repeatable: bool = False,
        request_id: str | None = None,
    ) -> CommandResponse:
        """Send a command to an agent and return the server's consent."""
        return _granted(
            await self._command(
                agent_id, command_type, payload, timeout_secs, repeatable, request_id
            ),
            agent_id,
        )

    async def status(self, agent_id: UUID) -> AgentStatus:
        """Return an agent's status, and nothing else of what the answer holds."""
        response = _granted(await self._command(agent_id, ControlCommandType.GET_STATUS), agent_id)
        return response.status or _told_status(response)

    async def details(self, agent_id: UUID, *, info: bool = False) -> AgentDetails:
        """Return an agent's state; with ``info``, all of it where the server can."""
        response = await self.control(
            agent_id, ControlCommandType.GET_STATUS, {"info": True} if info else None
        )
        data = response.data if isinstance(response.data, dict) else {}
        return AgentDetails(agent_id, response.status or _told_status(response), data)

    async def read_new(
        self, agent_id: UUID, stream: LogStreamType, max_bytes: int | None
    ) -> bytes | None:
        """Return output from the shared read cursor, which advances; ``None`` if there is none."""
        payload: dict[str, Any] = {"encoding": "base64"}
        if max_bytes is not None:
            payload["max_bytes"] = max_bytes
        response = await self.control(agent_id, _READ_COMMANDS[stream], payload)
        return _output(response.data, stream)[0] or None

    async def read_at(
        self, agent_id: UUID, stream: LogStreamType, offset: int, max_bytes: int
    ) -> OutputChunk:
        """Return output from an offset on; it begins later if the server no longer has it all."""
        response = await self.control(
            agent_id,
            _READ_COMMANDS[stream],
            {"offset": offset, "max_bytes": max_bytes, "encoding": "base64"},
            repeatable=True,
        )
        data, fields = _output(response.data, stream)
        start = _number(fields.get("offset"))
        start = offset if start is None else start
        following = _number(fields.get("next_offset"))
        return OutputChunk(data, start, start + len(data) if following is None else following)

    async def custom_action(
        self, agent_id: UUID, action: str, params: Any, timeout_secs: float | None
    ) -> CommandResponse:
        """Run an action that the server or the program around it has registered."""
        response: CommandResponse = await self._call(
            CustomActionRequest(
                request_id=self._connection.new_request_id(),
                agent_id=agent_id,
                action=action,
                params=params,
                timeout_secs=_whole_secs(timeout_secs),
            ),
            CommandResponse,
            timeout_secs,
            grace_secs=_ANSWER_GRACE_SECS,
            agent_id=agent_id,
        )
        return _granted(response, agent_id)

    async def query(
        self,
        agent_id: UUID,
        stream: ZmqOutputStream,
        filter: str | None,
        limit: int | None,
        offset: int | None,
    ) -> OutputQueryResponse:
        """Return lines of an agent's output, without consuming them."""
        response: OutputQueryResponse = await self._call(
            OutputQueryRequest(
                request_id=self._connection.new_request_id(),
                agent_id=agent_id,
                stream=stream,
                filter=filter,
                limit=limit,
                offset=offset,
            ),
            OutputQueryResponse,
            repeatable=True,
            agent_id=agent_id,
        )
        if not response.success:
            raise from_wire(response.error, agent_id=str(agent_id))
        return response

    async def batch(
        self,
        agent_ids: Iterable[UUID],
        command_type: ControlCommandType,
        payload: Any,
        fail_fast: bool,
    ) -> BatchControlResponse:
        """Send one command to many agents; the results are in the answer, agent by agent."""
        response: BatchControlResponse = await self._call(
            BatchControlCommand(
                request_id=self._connection.new_request_id(),
                agent_ids=list(agent_ids),
                command_type=command_type,
                payload=payload,
                fail_fast=fail_fast,
            ),
            BatchControlResponse,
            repeatable=command_type in _READ_ONLY,
        )
        return response

    def _command(
        self,
        agent_id: UUID,
        command_type: ControlCommandType,
        payload: Any = None,
        timeout_secs: float | None = None,
        repeatable: bool = False,
        request_id: str | None = None,
    ) -> Coroutine[Any, Any, CommandResponse]:
        return self._call(
            ControlCommand(
                request_id=request_id or self._connection.new_request_id(),
                agent_id=agent_id,
                command_type=command_type,
                payload=payload,
            ),
            CommandResponse,
            timeout_secs,
            repeatable=repeatable or command_type in _READ_ONLY,
            agent_id=agent_id,
        )

    def _call(
        self,
        message: Any,
        expected: type,
        timeout_secs: float | None = None,
        *,
        repeatable: bool = False,
        grace_secs: float = 0.0,
        agent_id: UUID | None = None,
    ) -> Coroutine[Any, Any, Any]:
        if timeout_secs is None:
            wait_secs = self._connection.config.request_timeout_secs
        else:
            wait_secs = checked_timeout(timeout_secs) + grace_secs
        return self._connection.call(
            message,
            expected,
            timeout_secs=wait_secs,
            repeatable=repeatable,
            agent_id=agent_id,
        )


def _agent_info(form: dict[str, Any]) -> AgentInfo | None:
    """Return the agent that a JSON form describes, or ``None`` if it describes none.

    Only whole messages are read from the JSON form, so the agent travels in one.
    """
    message = {"type": "spawn_response", "request_id": "", "success": True, "agent_info": form}
    try:
        response = from_builtins(message)
    except (DescartesError, TypeError, ValueError):
        return None
    return response.agent_info if isinstance(response, SpawnResponse) else None


def _told_status(response: CommandResponse) -> AgentStatus:
    """Return the status in an answer's data: a server may tell it there only."""
    data = response.data if isinstance(response.data, dict) else {}
    try:
        return AgentStatus(str(data.get("status")))
    except ValueError:
        raise ProtocolError("the server's get_status tells no status") from None


def _granted(response: CommandResponse, agent_id: UUID) -> CommandResponse:
    if not response.success:
        raise from_wire(response.error, agent_id=str(agent_id))
    return response


def _whole_secs(timeout_secs: float | None) -> int | None:
    """Return a timeout as the wire has it: whole seconds, never less than was given.

    Raises ``UsageError`` for an endless one, which the wire has no word for.
    """
    if timeout_secs is None:
        return None
    if checked_timeout(timeout_secs) == math.inf:
        raise UsageError("timeout_secs goes to the server too, and must be finite")
    return math.ceil(timeout_secs)


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _output(data: Any, stream: LogStreamType) -> tuple[bytes, Mapping[str, Any]]:
    """Return the bytes in the answer to a read, and its other fields.

    Without ``encoding`` it is plain text (Rust's server), by itself or under ``data`` or the
    stream's name.
    """
    fields: Mapping[str, Any] = data if isinstance(data, dict) else {"data": data}
    content = fields.get("data", fields.get(stream.value))
    encoding = fields.get("encoding", "text")
    try:
        if content is None:
            return b"", fields
        if encoding == "base64":
            return decode_base64(content), fields
        if encoding == "bytes":
            return bytes(content), fields
        if encoding == "text":
            return content.encode(), fields
    except (TypeError, ValueError, AttributeError):
        pass
    raise ProtocolError(f"the server's output is not {encoding!r} as it says")
