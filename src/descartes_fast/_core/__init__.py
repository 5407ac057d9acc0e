"""The wire core: bytes to typed messages and back. Knows no sockets, no asyncio, no processes."""

from __future__ import annotations

from .classes import replace
from .codec import (
    DEFAULT_TIMEOUT_SECS,
    MAX_MESSAGE_SIZE,
    ZMQ_PROTOCOL_VERSION,
    deserialize_zmq_message,
    serialize_zmq_message,
    validate_message_size,
)
from .enums import (
    AgentStatus,
    ControlCommandType,
    LogStreamType,
    PauseMode,
    StatusUpdateType,
    ZmqOutputStream,
)
from .forms import from_builtins, to_builtins
from .messages import (
    AgentConfig,
    AgentInfo,
    AttachInfo,
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
    LogStreamMessage,
    OutputQueryRequest,
    OutputQueryResponse,
    SpawnRequest,
    SpawnResponse,
    StatusUpdate,
    ZmqMessage,
)
from .peek import peek_header

__all__ = [
    "DEFAULT_TIMEOUT_SECS",
    "MAX_MESSAGE_SIZE",
    "ZMQ_PROTOCOL_VERSION",
    "AgentConfig",
    "AgentInfo",
    "AgentStatus",
    "AttachInfo",
    "BatchAgentResult",
    "BatchControlCommand",
    "BatchControlResponse",
    "CommandResponse",
    "ControlCommand",
    "ControlCommandType",
    "CustomActionRequest",
    "HealthCheckRequest",
    "HealthCheckResponse",
    "ListAgentsRequest",
    "ListAgentsResponse",
    "LogStreamMessage",
    "LogStreamType",
    "OutputQueryRequest",
    "OutputQueryResponse",
    "PauseMode",
    "SpawnRequest",
    "SpawnResponse",
    "StatusUpdate",
    "StatusUpdateType",
    "ZmqMessage",
    "ZmqOutputStream",
    "deserialize_zmq_message",
    "from_builtins",
    "peek_header",
    "replace",
    "serialize_zmq_message",
    "to_builtins",
    "validate_message_size",
]
