from typing import Generic, TypeVar

from .messages import LogStreamMessage, StatusUpdate

R = TypeVar("R")

class Sorter(Generic[R]):
    full: bool
    runs: list[tuple[R | None, list[LogStreamMessage | StatusUpdate] | bytes]]
    def __init__(self, routes: dict[bytes, R]) -> None: ...
    def add(self, frame: bytes) -> None: ...
