"""What type checkers know of the messages; checked by mypy, never run."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, assert_type
from uuid import UUID

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    BatchControlCommand,
    ControlCommand,
    ControlCommandType,
    ListAgentsResponse,
    LogStreamMessage,
    LogStreamType,
    SpawnRequest,
    StatusUpdate,
    StatusUpdateType,
    ZmqMessage,
    deserialize_zmq_message,
    from_builtins,
    peek_header,
    replace,
    serialize_zmq_message,
    to_builtins,
)

request = SpawnRequest(
    request_id="r",
    config=AgentConfig(name="n", environment={"A": "1"}, agents={"x": {"tools": ["Read", 1]}}),
)
assert_type(request.request_id, str)
assert_type(request.config, AgentConfig)
assert_type(request.timeout_secs, int | None)
assert_type(request.metadata, Mapping[str, str] | None)
assert_type(request.config.environment, Mapping[str, str])
assert_type(request.config.agents, Mapping[str, Any] | None)
assert_type(replace(request, request_id="s"), SpawnRequest)
assert_type(request.__replace__(metadata=None), SpawnRequest)

update = StatusUpdate(
    agent_id=UUID(int=0), update_type=StatusUpdateType.ERROR, timestamp=datetime.now(UTC)
)
assert_type(update.timestamp, datetime)
assert_type(update.timestamp_ns, int)
assert_type(update.status, AgentStatus | None)

info = AgentInfo(
    id=UUID(int=0),
    name="n",
    status=AgentStatus.RUNNING,
    model_backend="claude",
    started_at=5,
    task="t",
)
assert_type(info.paused_at, datetime | None)
assert_type(info.paused_at_ns, int | None)
assert_type(ListAgentsResponse(request_id="r", success=True).agents, tuple[AgentInfo, ...])
assert_type(
    BatchControlCommand(
        request_id="r", agent_ids=[UUID(int=0)], command_type=ControlCommandType.STOP
    ).agent_ids,
    tuple[UUID, ...],
)
log = LogStreamMessage(
    agent_id=UUID(int=0), stream_type=LogStreamType.STDOUT, data=memoryview(b"x"), sequence=0
)
assert_type(log.data, bytes)

message = deserialize_zmq_message(serialize_zmq_message(update, prefix=b"topic\0"))
assert_type(message, ZmqMessage)
assert_type(to_builtins(message), dict[str, Any])
assert_type(from_builtins({}), ZmqMessage)
assert_type(from_builtins({}, AgentInfo), AgentInfo)
assert_type(peek_header(b""), tuple[str, str | None] | None)

match message:
    case ControlCommand(command_type=command_type, agent_id=agent_id):
        assert_type(command_type, ControlCommandType)
        assert_type(agent_id, UUID)
    case SpawnRequest(request_id, config):
        assert_type(request_id, str)
        assert_type(config, AgentConfig)

SpawnRequest("r", AgentConfig())  # type: ignore[call-arg]
SpawnRequest(request_id="r")  # type: ignore[call-arg]
SpawnRequest(request_id=1, config=AgentConfig())  # type: ignore[arg-type]
AgentConfig(environment={"A": 1})  # type: ignore[dict-item]
request.request_id = "s"  # type: ignore[misc]
serialize_zmq_message(info)  # type: ignore[arg-type]
