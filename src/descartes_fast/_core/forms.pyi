from typing import Any, TypeVar, overload

from .messages import (
    AgentConfig,
    AgentInfo,
    AttachInfo,
    BatchAgentResult,
    ZmqMessage,
)

_Record = TypeVar("_Record", AgentConfig, AgentInfo, AttachInfo, BatchAgentResult)

def to_builtins(
    message: ZmqMessage | AgentConfig | AgentInfo | AttachInfo | BatchAgentResult, /
) -> dict[str, Any]: ...
@overload
def from_builtins(form: dict[str, Any], kind: None = None, /) -> ZmqMessage: ...
@overload
def from_builtins(form: dict[str, Any], kind: type[_Record], /) -> _Record: ...
