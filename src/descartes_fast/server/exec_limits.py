"""What ``execve`` takes: how long an argument, a variable, and all of them together may be."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping, Sequence

from ..errors import InvalidContext

__all__ = ["STRING_LIMIT_BYTES", "check_exec_limits", "total_limit_bytes"]

STRING_LIMIT_BYTES = 128 * 1024 - 1
"""One argument, or one ``NAME=value``: Linux' MAX_ARG_STRLEN counts the NUL at its end too."""

_MIB = 1024 * 1024
_POINTER_BYTES = 8
# The program's path, the auxiliary vector, and the variables that the keeper adds.
_RESERVE_BYTES = 16 * 1024
_SMALLEST_LIMIT_BYTES = 128 * 1024
_MOST_BYTES_A_CHARACTER = 4


def total_limit_bytes() -> int:
    """Return how many bytes arguments and environment may have together.

    Linux gives them a quarter of the stack's limit, between 128 KiB and 6 MiB, and counts a
    pointer for each (``fs/exec.c``, ``bprm_stack_limits``). ``sysconf`` is no help there: musl
    answers a constant.
    """
    if sys.platform == "linux":
        stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
        quarter = 6 * _MIB if stack == resource.RLIM_INFINITY else stack // 4
        limit = min(max(quarter, _SMALLEST_LIMIT_BYTES), 6 * _MIB)
    else:
        limit = os.sysconf("SC_ARG_MAX")
    return limit - _RESERVE_BYTES


def check_exec_limits(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Refuse what ``execve`` would answer with E2BIG, saying which part is too long.

    Raises ``InvalidContext``.
    """
    pieces = len(argv) + 2 * len(environment)
    characters = (
        sum(map(len, argv)) + sum(map(len, environment)) + sum(map(len, environment.values()))
    )
    most = characters * _MOST_BYTES_A_CHARACTER + pieces * (1 + _POINTER_BYTES)
    if most <= _SMALLEST_LIMIT_BYTES - _RESERVE_BYTES:
        return  # as nearly always: nothing need be counted exactly
    total = 0
    for position, word in enumerate(argv):
        size = len(os.fsencode(word))
        if size > STRING_LIMIT_BYTES:
            raise InvalidContext(
                f"argument {position} has {size} bytes, the system's limit is "
                f"{STRING_LIMIT_BYTES}; long texts belong into a task that goes by stdin"
            )
        total += size + 1 + _POINTER_BYTES
    for name, value in environment.items():
        size = len(os.fsencode(name)) + 1 + len(os.fsencode(value))
        if size > STRING_LIMIT_BYTES:
            raise InvalidContext(
                f"the environment variable {name} has {size} bytes, the system's limit is "
                f"{STRING_LIMIT_BYTES}; long texts belong into the task"
            )
        total += size + 1 + _POINTER_BYTES
    limit = total_limit_bytes()
    if total > limit:
        raise InvalidContext(
            f"arguments and environment have {total} bytes together, the limit is {limit}"
        )
