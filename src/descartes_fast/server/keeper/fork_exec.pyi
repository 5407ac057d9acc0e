from typing import Literal

class ChildFailed(OSError):
    stage: Literal["preparing", "directory", "limits", "exec"]

def fork_exec(
    executables: list[bytes],
    argv: list[bytes],
    environment: list[bytes],
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    directory: bytes | None,
    umask: int,
    limits: list[tuple[int, int]],
) -> int: ...
