from typing import Any, Final, TypeVar

_Message = TypeVar("_Message")

TYPES: Final[dict[str, type[Any]]]

def replace(message: _Message, /, **changes: Any) -> _Message: ...
def restore(kind: type[_Message], data: bytes) -> _Message: ...
