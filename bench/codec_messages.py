"""The six typical messages of the codec benchmarks, how to read them and how to make them."""

# ruff: noqa: B018

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    CommandResponse,
    ControlCommand,
    ControlCommandType,
    ListAgentsResponse,
    LogStreamMessage,
    LogStreamType,
    SpawnRequest,
    StatusUpdate,
    StatusUpdateType,
    ZmqMessage,
)

REQUEST_ID = "0b7e2c1e-8d8e-4a1d-9d6a-3f6f6b1c2d3e"
AGENT_ID = UUID("11111111-2222-3333-4444-555555555555")
NOW_NS = 1_763_000_000_123_456_789
TASK = "Read the repository, list every function without a test, and write the missing tests. "


def _agent(number: int) -> AgentInfo:
    return AgentInfo(
        id=UUID(int=AGENT_ID.int + number),
        name=f"remote-agent-{number}",
        status=AgentStatus.RUNNING,
        model_backend="claude",
        started_at=NOW_NS + number,
        task="Analyze codebase",
    )


MESSAGES: dict[str, ZmqMessage] = {
    "control_command": ControlCommand(
        request_id=REQUEST_ID,
        agent_id=AGENT_ID,
        command_type=ControlCommandType.PAUSE,
        payload={"force": True},
    ),
    "command_response": CommandResponse(
        request_id=REQUEST_ID,
        agent_id=AGENT_ID,
        success=True,
        status=AgentStatus.RUNNING,
        data={
            "data": "T3V0cHV0IG9mIHRoZSBhZ2VudAo=",
            "encoding": "base64",
            "bytes": 20,
            "offset": 4096,
            "next_offset": 4116,
            "eof": False,
        },
    ),
    "status_update": StatusUpdate(
        agent_id=AGENT_ID,
        update_type=StatusUpdateType.COMPLETED,
        status=AgentStatus.COMPLETED,
        message="Agent completed successfully",
        data={"seq": 7, "exit_code": 0, "signal": None, "stdout_bytes": 40960, "stderr_bytes": 0},
        timestamp=NOW_NS,
    ),
    "spawn_request": SpawnRequest(
        request_id=REQUEST_ID,
        config=AgentConfig(
            name="remote-agent-1",
            model_backend="claude",
            task=(TASK * 8)[:640],
            context="project context: a web service with a database behind it",
            system_prompt="You are a data analysis expert",
            environment={
                "LANG": "C.UTF-8",
                "PROJECT": "/srv/checkout/project",
                "ANTHROPIC_MODEL": "opus",
                "TERM": "dumb",
            },
        ),
        timeout_secs=300,
        metadata={"priority": "high", "owner": "nightly"},
    ),
    "log_message": LogStreamMessage(
        agent_id=AGENT_ID,
        stream_type=LogStreamType.STDOUT,
        data=(b"2025-11-13T02:13:20Z INFO worker: step finished, 17 files read\n" * 70)[:4096],
        timestamp=NOW_NS,
        sequence=1_048_576,
    ),
    "list_agents": ListAgentsResponse(
        request_id=REQUEST_ID, success=True, agents=[_agent(number) for number in range(100)]
    ),
}


# Each is run this often in one call, so that the call itself costs nothing beside it.
TIMES = (None,) * 100

Decode = Callable[[bytes], Any]


def _read_control_command(decode: Decode, data: bytes) -> None:
    for _ in TIMES:
        m = decode(data)
        m.request_id
        m.agent_id
        m.command_type
        m.payload


def _read_command_response(decode: Decode, data: bytes) -> None:
    for _ in TIMES:
        m = decode(data)
        m.request_id
        m.agent_id
        m.success
        m.status
        m.data
        m.error


def _read_status_update(decode: Decode, data: bytes) -> None:
    for _ in TIMES:
        m = decode(data)
        m.agent_id
        m.update_type
        m.status
        m.message
        m.data
        m.timestamp


def _read_spawn_request(decode: Decode, data: bytes) -> None:
    for _ in TIMES:
        m = decode(data)
        m.request_id
        m.timeout_secs
        m.metadata
        c = m.config
        c.name
        c.model_backend
        c.task
        c.context
        c.system_prompt
        c.environment
        c.model
        c.tool_level
        c.agents


def _read_log_message(decode: Decode, data: bytes) -> None:
    for _ in TIMES:
        m = decode(data)
        m.agent_id
        m.stream_type
        m.data
        m.timestamp
        m.sequence


def _read_list_agents(decode: Decode, data: bytes) -> None:
    for _ in TIMES:
        m = decode(data)
        m.request_id
        m.success
        m.error
        for a in m.agents:
            a.id
            a.name
            a.status
            a.model_backend
            a.started_at
            a.task
            a.paused_at
            a.pause_mode
            a.attach_info


READERS: dict[str, Callable[[Decode, bytes], None]] = {
    "control_command": _read_control_command,
    "command_response": _read_command_response,
    "status_update": _read_status_update,
    "spawn_request": _read_spawn_request,
    "log_message": _read_log_message,
    "list_agents": _read_list_agents,
}


def remake(message: Any) -> Callable[[], Any]:
    """Return a function that makes the message again from its fields, parts and all.

    Works for our types and for msgspec's, which are made from the same table.
    """
    kind = type(message)
    names = getattr(kind, "__struct_fields__", None) or kind.__match_args__
    fields = {}
    for name in names:
        value = getattr(message, f"{name}_ns", None) or getattr(message, name)
        fields[name] = list(value) if isinstance(value, tuple) else value
    return lambda: kind(**fields)
