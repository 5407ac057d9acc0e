"""Messages of many megabytes, put together by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from descartes_fast import MAX_MESSAGE_SIZE

AGENT = bytes(range(16))
ROOM = MAX_MESSAGE_SIZE


def array32(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")


def map32(count: int) -> bytes:
    return b"\xdf" + count.to_bytes(4, "big")


def fields(*values: Any, missing: int = 0) -> bytes:
    """Return an array of these values whose header counts ``missing`` more."""
    head = bytes([0x90 | (len(values) + missing)])
    return head + b"".join(msgpack.packb(value) for value in values)


# Everything before one field, which is to follow, and those behind it.
COMMAND = fields("control_command", "r", AGENT, "pause", missing=1)
LINES = fields("output_query_response", "r", AGENT, True, missing=1)
AGENTS = fields("list_agents_response", "r", True, missing=1)
BATCH = fields("batch_control_command", "r", missing=2)
LOG = fields("log_stream", AGENT, "stdout", missing=3)
HEALTH = fields("health_check_response", "r", True, "1.0.0", 1, 1, missing=1)
SPAWN = fields("spawn_request", "r", missing=1)
INFO = msgpack.packb([AGENT, "", "idle", "", [0, 0], ""])


def filled(
    head: bytes, make: Callable[[int], bytes], unit: bytes, tail: bytes = b"", room: int = ROOM
) -> bytes:
    """Return ``head``, a container header and as many units as there is room for."""
    count = (room - len(head) - 5 - len(tail)) // len(unit)
    return head + make(count) + unit * count + tail


def str32(data: bytes) -> bytes:
    return b"\xdb" + len(data).to_bytes(4, "big") + data
