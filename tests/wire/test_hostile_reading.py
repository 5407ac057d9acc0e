"""What is read of ten hostile megabytes: built whole, within the bounds that are documented."""

from __future__ import annotations

import itertools
import os
import sysconfig
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from descartes_fast import deserialize_zmq_message
from wire.large import (
    AGENT,
    AGENTS,
    BATCH,
    COMMAND,
    HEALTH,
    INFO,
    LINES,
    ROOM,
    SPAWN,
    array32,
    fields,
    filled,
    map32,
    str32,
)

# Every object is larger where there is no GIL, and none is shared with the one before.
LARGER = 2 if sysconfig.get_config_var("Py_GIL_DISABLED") else 1
RESULTS = fields("batch_control_response", "r", True, missing=3)


def different(count: int, before: bytes, after: bytes) -> bytes:
    """Return so many units, with three letters between that come again after 262,144 units."""
    digits = [bytes([48 + i]) for i in range(64)]
    letters = itertools.cycle(map(b"".join, itertools.product(digits, repeat=3)))
    return b"".join(before + found + after for found in itertools.islice(letters, count))


# The field's name, the message in so many bytes, and how many times its size reading may take.
READ: dict[str, tuple[str, Callable[[int], bytes], float]] = {
    "empty lines": ("lines", lambda room: filled(LINES, array32, b"\xa0", room=room), 9),
    "lines of a letter": ("lines", lambda room: filled(LINES, array32, b"\xa1a", room=room), 5),
    "lines of two letters": (
        "lines", lambda room: filled(LINES, array32, b"\xa2ab", room=room), 22,
    ),
    "lines of one euro": (
        "lines", lambda room: filled(LINES, array32, b"\xa3\xe2\x82\xac", room=room), 22,
    ),
    "lines of one emoji": (
        "lines", lambda room: filled(LINES, array32, b"\xa4\xf0\x9f\x98\x80", room=room), 22,
    ),
    "empty agents": ("agents", lambda room: filled(AGENTS, array32, INFO, room=room), 15),
    "results": (
        "results",
        lambda room: filled(
            RESULTS, array32, msgpack.packb([AGENT, True]), b"\x00\x00", room=room
        ),
        15,
    ),
    "ids": (
        "agent_ids",
        lambda room: BATCH + array32((room - 100) // 18)
        + different((room - 100) // 18, b"\xc4\x10" + bytes(13), b"") + msgpack.packb("stop"),
        8,
    ),
    # A dict has the most room to spare when it has just grown.
    "metadata": (
        "metadata", lambda room: HEALTH + map32(87_382) + different(87_382, b"\xa3", b"\xa0"), 30,
    ),
    "wide text": (
        "payload", lambda room: COMMAND + str32("\U0001f600".encode() * ((room - 100) // 4)), 6,
    ),
}  # fmt: skip


def read(message: Any) -> list[Any]:
    """Return every field, and every field of what is in lists."""
    found = []
    for name in message.__match_args__:
        value = getattr(message, name)
        found.append(value)
        if isinstance(value, tuple) and value and hasattr(value[0], "__match_args__"):
            found += [read(item) for item in value]
    return found


def peak_of_reading(data: bytes, name: str) -> int:
    message = deserialize_zmq_message(data)
    tracemalloc.start()
    try:
        value = getattr(message, name)
        if name in ("agents", "results"):
            value = [read(item) for item in value]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", READ)
def test_lists_and_maps_take_at_most_so_many_times_their_bytes(case: str) -> None:
    name, make, times = READ[case]
    data = make(500_000)
    peak = peak_of_reading(data, name)
    assert times * len(data) / 3 < peak < LARGER * times * len(data), peak / len(data)


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        (b"\x80", 1),
        (b"\x90", 1),
        (b"\x81\xa0\xc0", 2),
        (b"\x81\xa4\xf0\x9f\x98\x80\xa4\xf0\x9f\x98\x80", 2),
        (b"\xa4\xf0\x9f\x98\x80", 1),
        (b"\xcb?\xf8\x00\x00\x00\x00\x00\x01", 1),
    ],
    ids=str,
)
def test_payload_of_as_many_values_as_are_allowed_takes_at_most_20_megabytes(
    unit: bytes, values: int
) -> None:
    count = 99_999 // values
    data = COMMAND + array32(count) + unit * count
    assert peak_of_reading(data, "payload") < LARGER * 20_000_000
    keyed = COMMAND + map32(count) + different(count, b"\xa3", unit)
    assert peak_of_reading(keyed, "payload") < LARGER * 30_000_000


@pytest.mark.skipif(
    "DESCARTES_FAST_SANITIZED" in os.environ, reason="a sanitizer takes the time that it takes"
)
@pytest.mark.parametrize("case", READ)
def test_time_of_reading_is_in_proportion_to_the_bytes(case: str) -> None:
    message = deserialize_zmq_message(READ[case][1](ROOM))
    begin = time.perf_counter()
    read(message)
    # Under a second where it was measured; a quadratic builder would need hours.
    assert time.perf_counter() - begin < 20


def test_agents_of_a_config_share_one_count() -> None:
    count = 99_999
    data = SPAWN + b"\x99\xa0\xa0\xa0\xc0\xc0\x80\xc0\xc0" + map32(count)
    message: Any = deserialize_zmq_message(data + different(count, b"\xa3", b"\x80"))
    tracemalloc.start()
    try:
        assert len(message.config.agents) == count
        assert tracemalloc.get_traced_memory()[1] < LARGER * 30_000_000
    finally:
        tracemalloc.stop()
