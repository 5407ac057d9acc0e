"""The table of messages: every type of the protocol, declared once, in wire order.

Encoding, decoding, construction, ``repr``, equality, pickling, matching, the JSON form and
the type stubs all follow from it. The kinds of a field:

    text        ``str``                 nested        another record, ``of`` names it
    boolean     ``bool``                value         any JSON value
    u64, i64    ``int``                 text_map      ``str`` to ``str``
    word        an enum, ``of``         value_map     ``str`` to any JSON value
    uuid        ``uuid.UUID``           text_list     a list of ``str``
    time        a point in time         uuid_list     a list of ``uuid.UUID``
    octets      ``bytes``               nested_list   a list of records, ``of`` names them

A field is required unless it is ``optional`` (``None`` is a value, and the default) or has a
``default`` (then ``None`` is none of its values).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .enums import (
    AgentStatus,
    ControlCommandType,
    LogStreamType,
    PauseMode,
    StatusUpdateType,
    ZmqOutputStream,
)

__all__ = ["ENVELOPES", "RECORDS", "Field", "Record"]

REQUIRED: Any = object()


@dataclass(frozen=True)
class Field:
    """One field: its name on the wire and in Python, its kind, and what stands for it if absent."""

    name: str
    kind: str
    of: str | type[StrEnum] | None = None
    optional: bool = False
    default: Any = REQUIRED
    # The same few short texts come again and again: decoding keeps and shares them.
    repeats: bool = False

    @property
    def required(self) -> bool:
        """Whether a message without this field is broken."""
        return not self.optional and self.default is REQUIRED


@dataclass(frozen=True)
class Record:
    """One type: ``tag`` is its word in the envelope, empty for what only occurs inside others.

    ``trimmed`` records are written without their trailing run of ``None``: peers of the first
    release know fewer fields and reject a longer array.
    """

    name: str
    label: str
    doc: str
    fields: tuple[Field, ...]
    tag: str = ""
    trimmed: bool = False


def _inner(name: str, label: str, doc: str, *fields: Field, trimmed: bool = False) -> Record:
    return Record(name, label, doc, fields, trimmed=trimmed)


def _envelope(name: str, tag: str, doc: str, *fields: Field) -> Record:
    return Record(name, tag, doc, fields, tag=tag)


_REQUEST_ID = Field("request_id", "text")
_AGENT_ID = Field("agent_id", "uuid")
_ERROR = Field("error", "text", optional=True)

RECORDS: tuple[Record, ...] = (
    _inner(
        "AgentConfig",
        "agent_config",
        "What to run: the backend and the task, and what the agent is told and given.",
        Field("name", "text", default="", repeats=True),
        Field("model_backend", "text", default="", repeats=True),
        Field("task", "text", default=""),
        Field("context", "text", optional=True),
        Field("system_prompt", "text", optional=True),
        Field("environment", "text_map", default={}),
        Field("model", "text", optional=True, repeats=True),
        Field("tool_level", "text", optional=True, repeats=True),
        Field("agents", "value_map", optional=True),
        trimmed=True,
    ),
    _inner(
        "AttachInfo",
        "attach_info",
        "Where and with which token to attach to a paused agent, until ``expires_at`` (Unix time).",
        Field("connect_url", "text"),
        Field("token", "text"),
        Field("expires_at", "i64"),
    ),
    _inner(
        "AgentInfo",
        "agent_info",
        "An agent as its server knows it.",
        Field("id", "uuid"),
        Field("name", "text", repeats=True),
        Field("status", "word", AgentStatus),
        Field("model_backend", "text", repeats=True),
        Field("started_at", "time"),
        Field("task", "text"),
        Field("paused_at", "time", optional=True),
        Field("pause_mode", "word", PauseMode, optional=True),
        Field("attach_info", "nested", "AttachInfo", optional=True),
        trimmed=True,
    ),
    _inner(
        "BatchAgentResult",
        "batch_agent_result",
        "What a batch command did to one agent.",
        _AGENT_ID,
        Field("success", "boolean"),
        Field("status", "word", AgentStatus, optional=True),
        _ERROR,
    ),
    _envelope(
        "SpawnRequest",
        "spawn_request",
        "Asks the server to start an agent.",
        _REQUEST_ID,
        Field("config", "nested", "AgentConfig"),
        Field("timeout_secs", "u64", optional=True),
        Field("metadata", "text_map", optional=True),
    ),
    _envelope(
        "SpawnResponse",
        "spawn_response",
        "The agent that was started, or why none was.",
        _REQUEST_ID,
        Field("success", "boolean"),
        Field("agent_info", "nested", "AgentInfo", optional=True),
        _ERROR,
        Field("server_id", "text", optional=True, repeats=True),
    ),
    _envelope(
        "ControlCommand",
        "control_command",
        "Asks one thing of one agent; what ``payload`` holds depends on the command.",
        _REQUEST_ID,
        _AGENT_ID,
        Field("command_type", "word", ControlCommandType),
        Field("payload", "value", optional=True),
    ),
    _envelope(
        "CommandResponse",
        "command_response",
        "The result of a control command or a custom action.",
        _REQUEST_ID,
        _AGENT_ID,
        Field("success", "boolean"),
        Field("status", "word", AgentStatus, optional=True),
        Field("data", "value", optional=True),
        _ERROR,
    ),
    _envelope(
        "StatusUpdate",
        "status_update",
        "Something happened to an agent (or, with the nil id, to the server).",
        _AGENT_ID,
        Field("update_type", "word", StatusUpdateType),
        Field("status", "word", AgentStatus, optional=True),
        Field("message", "text", optional=True),
        Field("data", "value", optional=True),
        Field("timestamp", "time"),
    ),
    _envelope(
        "ListAgentsRequest",
        "list_agents_request",
        "Asks for the agents of a server, all or those in one state.",
        _REQUEST_ID,
        Field("filter_status", "word", AgentStatus, optional=True),
        Field("limit", "u64", optional=True),
    ),
    _envelope(
        "ListAgentsResponse",
        "list_agents_response",
        "The agents of a server.",
        _REQUEST_ID,
        Field("success", "boolean"),
        Field("agents", "nested_list", "AgentInfo", default=()),
        _ERROR,
    ),
    _envelope(
        "HealthCheckRequest",
        "health_check_request",
        "Asks a server whether it is well.",
        _REQUEST_ID,
    ),
    _envelope(
        "HealthCheckResponse",
        "health_check_response",
        "Whether a server is well, and what it can do.",
        _REQUEST_ID,
        Field("healthy", "boolean"),
        Field("protocol_version", "text", repeats=True),
        Field("uptime_secs", "u64", optional=True),
        Field("active_agents", "u64", optional=True),
        Field("metadata", "text_map", optional=True),
    ),
    _envelope(
        "CustomActionRequest",
        "custom_action_request",
        "Asks an agent's server for an action that it has by name.",
        _REQUEST_ID,
        _AGENT_ID,
        Field("action", "text"),
        Field("params", "value", optional=True),
        Field("timeout_secs", "u64", optional=True),
    ),
    _envelope(
        "BatchControlCommand",
        "batch_control_command",
        "Asks one thing of many agents.",
        _REQUEST_ID,
        Field("agent_ids", "uuid_list"),
        Field("command_type", "word", ControlCommandType),
        Field("payload", "value", optional=True),
        Field("fail_fast", "boolean", default=False),
    ),
    _envelope(
        "BatchControlResponse",
        "batch_control_response",
        "What a batch command did, agent by agent.",
        _REQUEST_ID,
        Field("success", "boolean"),
        Field("results", "nested_list", "BatchAgentResult"),
        Field("successful", "u64"),
        Field("failed", "u64"),
    ),
    _envelope(
        "OutputQueryRequest",
        "output_query_request",
        "Asks for lines of an agent's output, those that match ``filter`` if it is given.",
        _REQUEST_ID,
        _AGENT_ID,
        Field("stream", "word", ZmqOutputStream),
        Field("filter", "text", optional=True),
        Field("limit", "u64", optional=True),
        Field("offset", "u64", optional=True),
    ),
    _envelope(
        "OutputQueryResponse",
        "output_query_response",
        "Lines of an agent's output.",
        _REQUEST_ID,
        _AGENT_ID,
        Field("success", "boolean"),
        Field("lines", "text_list", default=()),
        Field("total_lines", "u64", optional=True),
        Field("has_more", "boolean", default=False),
        _ERROR,
    ),
    _envelope(
        "LogStreamMessage",
        "log_stream",
        "Bytes an agent wrote; ``sequence`` is the offset of the first in its stream.",
        _AGENT_ID,
        Field("stream_type", "word", LogStreamType),
        Field("data", "octets"),
        Field("timestamp", "time"),
        Field("sequence", "u64"),
    ),
)

ENVELOPES: tuple[Record, ...] = tuple(record for record in RECORDS if record.tag)
