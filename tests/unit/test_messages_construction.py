"""Messages from Python values: what fields take, what they refuse, and what they are then."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

import descartes_fast
from descartes_fast import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    AttachInfo,
    BatchControlCommand,
    BatchControlResponse,
    CommandResponse,
    ControlCommand,
    ControlCommandType,
    FieldError,
    HealthCheckRequest,
    HealthCheckResponse,
    ListAgentsResponse,
    LogStreamMessage,
    LogStreamType,
    OutputQueryResponse,
    PauseMode,
    SpawnRequest,
    StatusUpdate,
    StatusUpdateType,
    UsageError,
)

AGENT = UUID("11111111-2222-3333-4444-555555555555")


def control(**changes: Any) -> ControlCommand:
    fields: dict[str, Any] = {
        "request_id": "r",
        "agent_id": AGENT,
        "command_type": ControlCommandType.PAUSE,
    }
    return ControlCommand(**(fields | changes))


def test_defaults_are_those_of_the_format() -> None:
    config = AgentConfig()
    assert (config.name, config.model_backend, config.task) == ("", "", "")
    assert config.environment == {}
    assert (config.context, config.system_prompt, config.agents) == (None, None, None)
    assert ListAgentsResponse(request_id="r", success=True).agents == ()
    response = OutputQueryResponse(request_id="r", agent_id=AGENT, success=True)
    assert (response.lines, response.has_more, response.total_lines) == ((), False, None)
    command = BatchControlCommand(
        request_id="r", agent_ids=[], command_type=ControlCommandType.STOP
    )
    assert command.fail_fast is False


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: SpawnRequest(request_id="r"), "spawn_request.config"),
        (lambda: SpawnRequest(request_id=1, config=AgentConfig()), "spawn_request.request_id"),
        (lambda: SpawnRequest(request_id="r", config={}), "spawn_request.config"),
        (lambda: SpawnRequest(request_id="r", config=None), "spawn_request.config"),
        (
            lambda: SpawnRequest(request_id="r", config=AgentConfig(), timeout_secs=True),
            "spawn_request.timeout_secs",
        ),
        (
            lambda: SpawnRequest(request_id="r", config=AgentConfig(), timeout_secs=1.5),
            "spawn_request.timeout_secs",
        ),
        (
            lambda: SpawnRequest(request_id="r", config=AgentConfig(), timeout_secs=-1),
            "spawn_request.timeout_secs",
        ),
        (
            lambda: SpawnRequest(request_id="r", config=AgentConfig(), timeout_secs=2**64),
            "spawn_request.timeout_secs",
        ),
        (
            lambda: SpawnRequest(request_id="r", config=AgentConfig(), metadata={"a": 1}),
            "spawn_request.metadata",
        ),
        (
            lambda: SpawnRequest(request_id="r", config=AgentConfig(), unknown=1),
            "spawn_request.unknown",
        ),
        (lambda: AgentConfig(environment={1: "a"}), "agent_config.environment"),
        (lambda: AgentConfig(environment=[("a", "b")]), "agent_config.environment"),
        (lambda: AgentConfig(environment=None), "agent_config.environment"),
        (lambda: AgentConfig(agents={"a": object()}), "agent_config.agents"),
        (lambda: AgentConfig(name="\ud800"), "agent_config.name"),
        (lambda: AgentConfig(environment={"a": "\ud800"}), "agent_config.environment"),
        (lambda: control(agent_id=str(AGENT)), "control_command.agent_id"),
        (lambda: control(agent_id=AGENT.bytes), "control_command.agent_id"),
        (lambda: control(command_type="explode"), "control_command.command_type"),
        (lambda: control(command_type=AgentStatus.RUNNING), "control_command.command_type"),
        (lambda: control(command_type=0), "control_command.command_type"),
        (lambda: control(payload=b"bytes"), "control_command.payload"),
        (lambda: control(payload={1: 2}), "control_command.payload"),
        (lambda: control(payload=[2**64]), "control_command.payload"),
        (lambda: control(payload=-(2**63) - 1), "control_command.payload"),
        (lambda: control(payload=float("nan")), "control_command.payload"),
        (lambda: control(payload={"a": [1, {2}]}), "control_command.payload"),
        (
            lambda: CommandResponse(request_id="r", agent_id=AGENT, success=1),
            "command_response.success",
        ),
        (
            lambda: StatusUpdate(
                agent_id=AGENT, update_type=StatusUpdateType.ERROR, timestamp=datetime(2025, 1, 1)
            ),
            "status_update.timestamp",
        ),
        (
            lambda: StatusUpdate(agent_id=AGENT, update_type=StatusUpdateType.ERROR, timestamp=1.5),
            "status_update.timestamp",
        ),
        (
            lambda: StatusUpdate(agent_id=AGENT, update_type=StatusUpdateType.ERROR, timestamp=-1),
            "status_update.timestamp",
        ),
        (
            lambda: LogStreamMessage(
                agent_id=AGENT, stream_type=LogStreamType.STDOUT, data="text", sequence=0
            ),
            "log_stream.data",
        ),
        (
            lambda: BatchControlCommand(
                request_id="r", agent_ids=[str(AGENT)], command_type=ControlCommandType.STOP
            ),
            "batch_control_command.agent_ids",
        ),
        (
            lambda: ListAgentsResponse(request_id="r", success=True, agents=[1]),
            "list_agents_response.agents",
        ),
        (
            lambda: OutputQueryResponse(
                request_id="r", agent_id=AGENT, success=True, lines="not a list"
            ),
            "output_query_response.lines",
        ),
        (
            lambda: BatchControlResponse(
                request_id="r", success=True, results=[], successful=0, failed=None
            ),
            "batch_control_response.failed",
        ),
        (
            lambda: AttachInfo(connect_url="u", token="t", expires_at=2**63),
            "attach_info.expires_at",
        ),
    ],
)
def test_wrong_value_is_refused_with_the_name_of_the_field(make: Any, path: str) -> None:
    with pytest.raises(FieldError) as caught:
        make()
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")
    assert isinstance(caught.value, UsageError)
    assert isinstance(caught.value, TypeError)


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(FieldError):
        HealthCheckRequest("r")  # type: ignore[misc]


def test_payload_deeper_than_the_limit_is_refused() -> None:
    deepest: Any = None
    for _ in range(128):
        deepest = [deepest]
    assert control(payload=deepest).payload == deepest
    with pytest.raises(FieldError):
        control(payload=[deepest])
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(FieldError):
        control(payload=circle)


def test_payload_of_more_values_than_the_limit_is_refused() -> None:
    assert len(control(payload=[None] * 99_999).payload) == 99_999
    with pytest.raises(FieldError):
        control(payload=[None] * 100_000)


def test_field_larger_than_a_message_is_refused() -> None:
    with pytest.raises(FieldError):
        control(payload="x" * (10 * 1024 * 1024))


def test_times_are_given_in_any_form_and_read_exactly() -> None:
    def update(timestamp: Any = None) -> StatusUpdate:
        return StatusUpdate(
            agent_id=AGENT, update_type=StatusUpdateType.HEARTBEAT, timestamp=timestamp
        )

    assert update(1_763_000_000_123_456_789).timestamp_ns == 1_763_000_000_123_456_789
    east = datetime(2025, 11, 13, 4, 13, 20, 123456, timezone(timedelta(hours=2)))
    assert update(east).timestamp == east
    assert update(east).timestamp.tzinfo is UTC
    assert update(east).timestamp_ns == 1_763_000_000_123_456_000
    before = datetime.now(UTC) - timedelta(microseconds=1)
    assert before <= update().timestamp <= datetime.now(UTC)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(2000, 2, 29, 12, tzinfo=UTC),
        datetime(2100, 2, 28, tzinfo=UTC),
        datetime(2100, 3, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
    ],
)
def test_every_date_is_read_as_it_was_given(moment: datetime) -> None:
    update = StatusUpdate(agent_id=AGENT, update_type=StatusUpdateType.HEARTBEAT, timestamp=moment)
    assert update.timestamp == moment


def test_time_after_the_last_datetime_is_read_in_nanoseconds_only() -> None:
    late = (2**63 - 1) * 10**9 + 999_999_999
    update = StatusUpdate(agent_id=AGENT, update_type=StatusUpdateType.HEARTBEAT, timestamp=late)
    assert update.timestamp_ns == late
    with pytest.raises(OverflowError):
        update.timestamp  # noqa: B018
    assert str(late) in repr(update)


def test_absent_time_is_none_in_both_forms() -> None:
    info = agent_info()
    assert info.paused_at is None
    assert info.paused_at_ns is None
    assert descartes_fast.replace(info, paused_at=7).paused_at_ns == 7


def agent_info(**changes: Any) -> AgentInfo:
    fields: dict[str, Any] = {
        "id": AGENT,
        "name": "n",
        "status": AgentStatus.RUNNING,
        "model_backend": "claude",
        "started_at": 5,
        "task": "t",
    }
    return AgentInfo(**(fields | changes))


@pytest.mark.parametrize("data", [b"ab", bytearray(b"ab"), memoryview(b"xabx")[1:3]])
def test_log_data_is_any_buffer_and_read_as_bytes(data: Any) -> None:
    message = LogStreamMessage(
        agent_id=AGENT, stream_type=LogStreamType.STDERR, data=data, sequence=1
    )
    assert message.data == b"ab"
    assert type(message.data) is bytes


def test_word_may_be_given_as_text_and_is_read_as_the_enum() -> None:
    assert control(command_type="kill").command_type is ControlCommandType.KILL
    assert agent_info(pause_mode="forced").pause_mode is PauseMode.FORCED


def test_message_does_not_change_with_what_it_was_made_from() -> None:
    payload = {"items": [1]}
    command = control(payload=payload)
    payload["items"].append(2)
    assert command.payload == {"items": [1]}


def test_message_does_not_change_with_what_was_read_from_it() -> None:
    command = control(payload={"items": [1]})
    before = descartes_fast.serialize_zmq_message(command)
    command.payload["items"].append(2)
    assert descartes_fast.serialize_zmq_message(command) == before
    assert command == control(payload={"items": [1]})
    assert descartes_fast.to_builtins(command)["payload"] == {"items": [1]}


def test_fields_cannot_be_set_or_deleted() -> None:
    command = control()
    for name in ("request_id", "agent_id", "payload", "nothing"):
        with pytest.raises(AttributeError):
            setattr(command, name, "x")
        with pytest.raises((AttributeError, TypeError)):
            delattr(command, name)


def test_same_object_is_read_each_time() -> None:
    command = control(payload={"a": 1})
    assert command.payload is command.payload
    assert command.agent_id is command.agent_id


def test_signature_names_the_fields() -> None:
    parameters = inspect.signature(SpawnRequest).parameters
    assert list(parameters) == ["request_id", "config", "timeout_secs", "metadata"]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())


def test_health_response_keeps_whole_numbers_of_64_bits() -> None:
    response = HealthCheckResponse(
        request_id="r", healthy=True, protocol_version="1.0.0", uptime_secs=2**64 - 1
    )
    assert response.uptime_secs == 2**64 - 1
