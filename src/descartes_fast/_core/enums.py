"""The closed sets of words on the wire, as ``str`` enums with the wire's own words."""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "AgentStatus",
    "ControlCommandType",
    "LogStreamType",
    "PauseMode",
    "StatusUpdateType",
    "ZmqOutputStream",
]


class AgentStatus(StrEnum):
    """The state of an agent."""

    IDLE = "idle"
    INITIALIZING = "initializing"
    RUNNING = "running"
    THINKING = "thinking"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    TERMINATED = "terminated"

    @property
    def is_terminal(self) -> bool:
        """Whether the agent has ended: ``completed``, ``failed`` or ``terminated``."""
        return self in _TERMINAL

    @property
    def is_active(self) -> bool:
        """Whether the agent is at work: ``initializing``, ``running`` or ``thinking``."""
        return self in _ACTIVE


_TERMINAL = frozenset({AgentStatus.COMPLETED, AgentStatus.FAILED, AgentStatus.TERMINATED})
_ACTIVE = frozenset({AgentStatus.INITIALIZING, AgentStatus.RUNNING, AgentStatus.THINKING})


class ControlCommandType(StrEnum):
    """What a control command asks of an agent."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    KILL = "kill"
    WRITE_STDIN = "write_stdin"
    READ_STDOUT = "read_stdout"
    READ_STDERR = "read_stderr"
    GET_STATUS = "get_status"
    SIGNAL = "signal"
    CUSTOM_ACTION = "custom_action"
    QUERY_OUTPUT = "query_output"
    STREAM_LOGS = "stream_logs"


class StatusUpdateType(StrEnum):
    """Why a status update was published."""

    STATUS_CHANGED = "status_changed"
    OUTPUT_AVAILABLE = "output_available"
    ERROR = "error"
    COMPLETED = "completed"
    TERMINATED = "terminated"
    HEARTBEAT = "heartbeat"


class LogStreamType(StrEnum):
    """The stream a log message's bytes come from."""

    STDOUT = "stdout"
    STDERR = "stderr"


class ZmqOutputStream(StrEnum):
    """The streams an output query looks at."""

    STDOUT = "stdout"
    STDERR = "stderr"
    BOTH = "both"


class PauseMode(StrEnum):
    """How an agent was paused: asked to, or stopped by the operating system."""

    COOPERATIVE = "cooperative"
    FORCED = "forced"
