"""The classes of the messages. Written by ``tests/wire/message_stub.py`` from the table."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, Self, TypeAlias, final
from uuid import UUID

from typing_extensions import Buffer

from .enums import (
    AgentStatus,
    ControlCommandType,
    LogStreamType,
    PauseMode,
    StatusUpdateType,
    ZmqOutputStream,
)

Value: TypeAlias = bool | int | float | str | list[Any] | tuple[Any, ...] | dict[str, Any] | None

@final
class AgentConfig:
    """What to run: the backend and the task, and what the agent is told and given."""

    __match_args__: Final = (
        "name",
        "model_backend",
        "task",
        "context",
        "system_prompt",
        "environment",
        "model",
        "tool_level",
        "agents",
    )
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        name: str = ...,
        model_backend: str = ...,
        task: str = ...,
        context: str | None = ...,
        system_prompt: str | None = ...,
        environment: Mapping[str, str] = ...,
        model: str | None = ...,
        tool_level: str | None = ...,
        agents: Mapping[str, Value] | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        name: str = ...,
        model_backend: str = ...,
        task: str = ...,
        context: str | None = ...,
        system_prompt: str | None = ...,
        environment: Mapping[str, str] = ...,
        model: str | None = ...,
        tool_level: str | None = ...,
        agents: Mapping[str, Value] | None = ...,
    ) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def model_backend(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def context(self) -> str | None: ...
    @property
    def system_prompt(self) -> str | None: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def model(self) -> str | None: ...
    @property
    def tool_level(self) -> str | None: ...
    @property
    def agents(self) -> Mapping[str, Any] | None: ...

@final
class AttachInfo:
    """Where and with which token to attach to a paused agent, until ``expires_at`` (Unix time)."""

    __match_args__: Final = ("connect_url", "token", "expires_at")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        connect_url: str,
        token: str,
        expires_at: int,
    ) -> None: ...
    def __replace__(
        self,
        *,
        connect_url: str = ...,
        token: str = ...,
        expires_at: int = ...,
    ) -> Self: ...
    @property
    def connect_url(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def expires_at(self) -> int: ...

@final
class AgentInfo:
    """An agent as its server knows it."""

    __match_args__: Final = (
        "id",
        "name",
        "status",
        "model_backend",
        "started_at",
        "task",
        "paused_at",
        "pause_mode",
        "attach_info",
    )
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        id: UUID,
        name: str,
        status: AgentStatus,
        model_backend: str,
        started_at: datetime | int | None = ...,
        task: str,
        paused_at: datetime | int | None = ...,
        pause_mode: PauseMode | None = ...,
        attach_info: AttachInfo | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        id: UUID = ...,
        name: str = ...,
        status: AgentStatus = ...,
        model_backend: str = ...,
        started_at: datetime | int | None = ...,
        task: str = ...,
        paused_at: datetime | int | None = ...,
        pause_mode: PauseMode | None = ...,
        attach_info: AttachInfo | None = ...,
    ) -> Self: ...
    @property
    def id(self) -> UUID: ...
    @property
    def name(self) -> str: ...
    @property
    def status(self) -> AgentStatus: ...
    @property
    def model_backend(self) -> str: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def started_at_ns(self) -> int: ...
    @property
    def task(self) -> str: ...
    @property
    def paused_at(self) -> datetime | None: ...
    @property
    def paused_at_ns(self) -> int | None: ...
    @property
    def pause_mode(self) -> PauseMode | None: ...
    @property
    def attach_info(self) -> AttachInfo | None: ...

@final
class BatchAgentResult:
    """What a batch command did to one agent."""

    __match_args__: Final = ("agent_id", "success", "status", "error")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        agent_id: UUID,
        success: bool,
        status: AgentStatus | None = ...,
        error: str | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        agent_id: UUID = ...,
        success: bool = ...,
        status: AgentStatus | None = ...,
        error: str | None = ...,
    ) -> Self: ...
    @property
    def agent_id(self) -> UUID: ...
    @property
    def success(self) -> bool: ...
    @property
    def status(self) -> AgentStatus | None: ...
    @property
    def error(self) -> str | None: ...

@final
class SpawnRequest:
    """Asks the server to start an agent."""

    __match_args__: Final = ("request_id", "config", "timeout_secs", "metadata")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
        config: AgentConfig,
        timeout_secs: int | None = ...,
        metadata: Mapping[str, str] | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
        config: AgentConfig = ...,
        timeout_secs: int | None = ...,
        metadata: Mapping[str, str] | None = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...
    @property
    def config(self) -> AgentConfig: ...
    @property
    def timeout_secs(self) -> int | None: ...
    @property
    def metadata(self) -> Mapping[str, str] | None: ...

@final
class SpawnResponse:
    """The agent that was started, or why none was."""

    __match_args__: Final = ("request_id", "success", "agent_info", "error", "server_id")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
        success: bool,
        agent_info: AgentInfo | None = ...,
        error: str | None = ...,
        server_id: str | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
        success: bool = ...,
        agent_info: AgentInfo | None = ...,
        error: str | None = ...,
        server_id: str | None = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...
    @property
    def success(self) -> bool: ...
    @property
    def agent_info(self) -> AgentInfo | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def server_id(self) -> str | None: ...

@final
class ControlCommand:
    """Asks one thing of one agent; what ``payload`` holds depends on the command."""

    __match_args__: Final = ("request_id", "agent_id", "command_type", "payload")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
        agent_id: UUID,
        command_type: ControlCommandType,
        payload: Value = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
        agent_id: UUID = ...,
        command_type: ControlCommandType = ...,
        payload: Value = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...
    @property
    def agent_id(self) -> UUID: ...
    @property
    def command_type(self) -> ControlCommandType: ...
    @property
    def payload(self) -> Any: ...

@final
class CommandResponse:
    """The result of a control command or a custom action."""

    __match_args__: Final = ("request_id", "agent_id", "success", "status", "data", "error")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
        agent_id: UUID,
        success: bool,
        status: AgentStatus | None = ...,
        data: Value = ...,
        error: str | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
        agent_id: UUID = ...,
        success: bool = ...,
        status: AgentStatus | None = ...,
        data: Value = ...,
        error: str | None = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...
    @property
    def agent_id(self) -> UUID: ...
    @property
    def success(self) -> bool: ...
    @property
    def status(self) -> AgentStatus | None: ...
    @property
    def data(self) -> Any: ...
    @property
    def error(self) -> str | None: ...

@final
class StatusUpdate:
    """Something happened to an agent (or, with the nil id, to the server)."""

    __match_args__: Final = ("agent_id", "update_type", "status", "message", "data", "timestamp")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        agent_id: UUID,
        update_type: StatusUpdateType,
        status: AgentStatus | None = ...,
        message: str | None = ...,
        data: Value = ...,
        timestamp: datetime | int | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        agent_id: UUID = ...,
        update_type: StatusUpdateType = ...,
        status: AgentStatus | None = ...,
        message: str | None = ...,
        data: Value = ...,
        timestamp: datetime | int | None = ...,
    ) -> Self: ...
    @property
    def agent_id(self) -> UUID: ...
    @property
    def update_type(self) -> StatusUpdateType: ...
    @property
    def status(self) -> AgentStatus | None: ...
    @property
    def message(self) -> str | None: ...
    @property
    def data(self) -> Any: ...
    @property
    def timestamp(self) -> datetime: ...
    @property
    def timestamp_ns(self) -> int: ...

@final
class ListAgentsRequest:
    """Asks for the agents of a server, all or those in one state."""

    __match_args__: Final = ("request_id", "filter_status", "limit")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
        filter_status: AgentStatus | None = ...,
        limit: int | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
        filter_status: AgentStatus | None = ...,
        limit: int | None = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...
    @property
    def filter_status(self) -> AgentStatus | None: ...
    @property
    def limit(self) -> int | None: ...

@final
class ListAgentsResponse:
    """The agents of a server."""

    __match_args__: Final = ("request_id", "success", "agents", "error")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
        success: bool,
        agents: Sequence[AgentInfo] = ...,
        error: str | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
        success: bool = ...,
        agents: Sequence[AgentInfo] = ...,
        error: str | None = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...
    @property
    def success(self) -> bool: ...
    @property
    def agents(self) -> tuple[AgentInfo, ...]: ...
    @property
    def error(self) -> str | None: ...

@final
class HealthCheckRequest:
    """Asks a server whether it is well."""

    __match_args__: Final = ("request_id",)
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...

@final
class HealthCheckResponse:
    """Whether a server is well, and what it can do."""

    __match_args__: Final = (
        "request_id",
        "healthy",
        "protocol_version",
        "uptime_secs",
        "active_agents",
        "metadata",
    )
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
        healthy: bool,
        protocol_version: str,
        uptime_secs: int | None = ...,
        active_agents: int | None = ...,
        metadata: Mapping[str, str] | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
        healthy: bool = ...,
        protocol_version: str = ...,
        uptime_secs: int | None = ...,
        active_agents: int | None = ...,
        metadata: Mapping[str, str] | None = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...
    @property
    def healthy(self) -> bool: ...
    @property
    def protocol_version(self) -> str: ...
    @property
    def uptime_secs(self) -> int | None: ...
    @property
    def active_agents(self) -> int | None: ...
    @property
    def metadata(self) -> Mapping[str, str] | None: ...

@final
class CustomActionRequest:
    """Asks an agent's server for an action that it has by name."""

    __match_args__: Final = ("request_id", "agent_id", "action", "params", "timeout_secs")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
        agent_id: UUID,
        action: str,
        params: Value = ...,
        timeout_secs: int | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
        agent_id: UUID = ...,
        action: str = ...,
        params: Value = ...,
        timeout_secs: int | None = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...
    @property
    def agent_id(self) -> UUID: ...
    @property
    def action(self) -> str: ...
    @property
    def params(self) -> Any: ...
    @property
    def timeout_secs(self) -> int | None: ...

@final
class BatchControlCommand:
    """Asks one thing of many agents."""

    __match_args__: Final = ("request_id", "agent_ids", "command_type", "payload", "fail_fast")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
        agent_ids: Sequence[UUID],
        command_type: ControlCommandType,
        payload: Value = ...,
        fail_fast: bool = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
        agent_ids: Sequence[UUID] = ...,
        command_type: ControlCommandType = ...,
        payload: Value = ...,
        fail_fast: bool = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...
    @property
    def agent_ids(self) -> tuple[UUID, ...]: ...
    @property
    def command_type(self) -> ControlCommandType: ...
    @property
    def payload(self) -> Any: ...
    @property
    def fail_fast(self) -> bool: ...

@final
class BatchControlResponse:
    """What a batch command did, agent by agent."""

    __match_args__: Final = ("request_id", "success", "results", "successful", "failed")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
        success: bool,
        results: Sequence[BatchAgentResult],
        successful: int,
        failed: int,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
        success: bool = ...,
        results: Sequence[BatchAgentResult] = ...,
        successful: int = ...,
        failed: int = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...
    @property
    def success(self) -> bool: ...
    @property
    def results(self) -> tuple[BatchAgentResult, ...]: ...
    @property
    def successful(self) -> int: ...
    @property
    def failed(self) -> int: ...

@final
class OutputQueryRequest:
    """Asks for lines of an agent's output, those that match ``filter`` if it is given."""

    __match_args__: Final = ("request_id", "agent_id", "stream", "filter", "limit", "offset")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
        agent_id: UUID,
        stream: ZmqOutputStream,
        filter: str | None = ...,
        limit: int | None = ...,
        offset: int | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
        agent_id: UUID = ...,
        stream: ZmqOutputStream = ...,
        filter: str | None = ...,
        limit: int | None = ...,
        offset: int | None = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...
    @property
    def agent_id(self) -> UUID: ...
    @property
    def stream(self) -> ZmqOutputStream: ...
    @property
    def filter(self) -> str | None: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def offset(self) -> int | None: ...

@final
class OutputQueryResponse:
    """Lines of an agent's output."""

    __match_args__: Final = (
        "request_id",
        "agent_id",
        "success",
        "lines",
        "total_lines",
        "has_more",
        "error",
    )
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        request_id: str,
        agent_id: UUID,
        success: bool,
        lines: Sequence[str] = ...,
        total_lines: int | None = ...,
        has_more: bool = ...,
        error: str | None = ...,
    ) -> None: ...
    def __replace__(
        self,
        *,
        request_id: str = ...,
        agent_id: UUID = ...,
        success: bool = ...,
        lines: Sequence[str] = ...,
        total_lines: int | None = ...,
        has_more: bool = ...,
        error: str | None = ...,
    ) -> Self: ...
    @property
    def request_id(self) -> str: ...
    @property
    def agent_id(self) -> UUID: ...
    @property
    def success(self) -> bool: ...
    @property
    def lines(self) -> tuple[str, ...]: ...
    @property
    def total_lines(self) -> int | None: ...
    @property
    def has_more(self) -> bool: ...
    @property
    def error(self) -> str | None: ...

@final
class LogStreamMessage:
    """Bytes an agent wrote; ``sequence`` is the offset of the first in its stream."""

    __match_args__: Final = ("agent_id", "stream_type", "data", "timestamp", "sequence")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(
        self,
        *,
        agent_id: UUID,
        stream_type: LogStreamType,
        data: Buffer,
        timestamp: datetime | int | None = ...,
        sequence: int,
    ) -> None: ...
    def __replace__(
        self,
        *,
        agent_id: UUID = ...,
        stream_type: LogStreamType = ...,
        data: Buffer = ...,
        timestamp: datetime | int | None = ...,
        sequence: int = ...,
    ) -> Self: ...
    @property
    def agent_id(self) -> UUID: ...
    @property
    def stream_type(self) -> LogStreamType: ...
    @property
    def data(self) -> bytes: ...
    @property
    def timestamp(self) -> datetime: ...
    @property
    def timestamp_ns(self) -> int: ...
    @property
    def sequence(self) -> int: ...

ZmqMessage: TypeAlias = (
    SpawnRequest
    | SpawnResponse
    | ControlCommand
    | CommandResponse
    | StatusUpdate
    | ListAgentsRequest
    | ListAgentsResponse
    | HealthCheckRequest
    | HealthCheckResponse
    | CustomActionRequest
    | BatchControlCommand
    | BatchControlResponse
    | OutputQueryRequest
    | OutputQueryResponse
    | LogStreamMessage
)
