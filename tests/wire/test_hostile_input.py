"""Ten megabytes of anything: refused or taken in little time, with little memory."""

from __future__ import annotations

import contextlib
import os
import time
import tracemalloc
from typing import Any

import msgpack
import pytest

from descartes_fast import (
    MAX_MESSAGE_SIZE,
    ProtocolError,
    deserialize_zmq_message,
    peek_header,
    serialize_zmq_message,
)
from wire.large import (
    AGENT,
    AGENTS,
    BATCH,
    COMMAND,
    HEALTH,
    INFO,
    LINES,
    LOG,
    ROOM,
    SPAWN,
    array32,
    filled,
    map32,
    str32,
)

timed = pytest.mark.skipif(
    "DESCARTES_FAST_SANITIZED" in os.environ, reason="a sanitizer takes the time that it takes"
)

HOSTILE = {
    "empty maps as a payload": filled(COMMAND, array32, b"\x80"),
    "empty arrays as a payload": filled(COMMAND, array32, b"\x90"),
    "nils as a payload": filled(COMMAND, array32, b"\xc0"),
    "a map of empty maps": filled(COMMAND, map32, b"\xa0\x80"),
    "arrays inside arrays": COMMAND + b"\x91" * (ROOM - len(COMMAND)),
    "maps inside maps": COMMAND + b"\x81\xa0" * ((ROOM - len(COMMAND)) // 2),
    "long arrays inside arrays": COMMAND + (b"\xdd\x00\x00\x00\x01" * 2_000_000),
    "empty lines": filled(LINES, array32, b"\xa0"),
    "empty agents": filled(AGENTS, array32, INFO),
    "ids": filled(BATCH, array32, b"\xc4\x10" + AGENT, msgpack.packb("stop")),
    "metadata of empty strings": filled(HEALTH, map32, b"\xa0\xa0"),
    "log data below 0x80": filled(LOG, array32, b"a", b"\x92\x00\x00\x00"),
    "log data above 0x80": filled(LOG, array32, b"\xcc\xff", b"\x92\x00\x00\x00"),
    "log data in wide numbers": filled(LOG, array32, b"\xcd\x00\xff", b"\x92\x00\x00\x00"),
    "one long string": COMMAND + str32(b"a" * (ROOM - len(COMMAND) - 5)),
    "one long broken string": COMMAND + str32(b"a" * (ROOM - len(COMMAND) - 6) + b"\xff"),
    "one long request id": b"\x92" + msgpack.packb("health_check_request")
    + str32(b"a" * (ROOM - 30)),
    "one long wide payload": COMMAND + str32("\U0001f600".encode() * ((ROOM - 80) // 4)),
    "one long request id with a wide character": b"\x92" + msgpack.packb("health_check_request")
    + str32(b"a" * (ROOM - 40) + "😀".encode()),
    "one long request id of wide characters": b"\x92" + msgpack.packb("health_check_request")
    + str32("é".encode() * ((ROOM - 40) // 2)),
    "a long wide task in a config": SPAWN + b"\x93\xa0\xa0"
    + str32("€".encode() * ((ROOM - 80) // 3)),
    "unknown keys": filled(b"", map32, b"\xa0\xc0"),
    "a value before the type": filled(
        b"\x83\xa1x", array32, b"\x80",
        msgpack.packb("type") + msgpack.packb("health_check_request") + b"\xaarequest_id\xa1r",
    ),
    "agents of a config": filled(
        SPAWN + b"\x99\xa0\xa0\xa0\xc0\xc0\x80\xc0\xc0", map32, b"\xa0\x80"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_memory_stays_below_twice_the_input(name: str) -> None:
    data = HOSTILE[name]
    assert len(data) <= MAX_MESSAGE_SIZE
    tracemalloc.start()
    try:
        message = refused = None
        try:
            message = deserialize_zmq_message(data)
        except ProtocolError as error:
            refused = error
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (message is None) == (refused is not None)
    # What the input itself takes was there before: this is what decoding adds.
    assert peak < len(data) + 100_000


def best_of_ten(function: Any, data: bytes) -> float:
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        with contextlib.suppress(ProtocolError):
            function(data)
        times.append(time.perf_counter() - begin)
    return min(times)


@timed
@pytest.mark.parametrize(
    "name",
    [
        "empty maps as a payload",
        "empty arrays as a payload",
        "nils as a payload",
        "a map of empty maps",
        "arrays inside arrays",
        "maps inside maps",
        "long arrays inside arrays",
        "agents of a config",
    ],
)
def test_payload_beyond_the_limits_is_refused_within_five_milliseconds(name: str) -> None:
    with pytest.raises(ProtocolError):
        deserialize_zmq_message(HOSTILE[name])
    assert best_of_ten(deserialize_zmq_message, HOSTILE[name]) < 0.005


@timed
@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_in_proportion_to_the_bytes(name: str) -> None:
    # A quadratic reader would need minutes; the rest is room for a busy machine.
    assert best_of_ten(deserialize_zmq_message, HOSTILE[name]) < 1
    assert best_of_ten(peek_header, HOSTILE[name]) < 1


@pytest.mark.parametrize(
    "head", [COMMAND, LINES, AGENTS, BATCH, LOG, HEALTH, SPAWN, b"", b"\x92"], ids=repr
)
@pytest.mark.parametrize(
    "claim",
    [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
     b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xdc\xff\xff", b"\xde\xff\xff",
     b"\xda\xff\xff", b"\xc5\xff\xff", b"\xc8\xff\xff\x01"],
    ids=bytes.hex,
)  # fmt: skip
def test_length_that_is_not_there_is_refused_before_any_allocation(
    head: bytes, claim: bytes
) -> None:
    data = head + claim
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            deserialize_zmq_message(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("depth", [129, 500, 1_100, 100_000])
@pytest.mark.parametrize("piece", [b"\x91", b"\x81\xa1k", b"\xdc\x00\x01"], ids=bytes.hex)
def test_nesting_beyond_the_limit_is_refused(depth: int, piece: bytes) -> None:
    with pytest.raises(ProtocolError):
        deserialize_zmq_message(COMMAND + piece * depth + b"\xc0")


@pytest.mark.parametrize("piece", [b"\x91", b"\x81\xa1k", b"\xdc\x00\x01"], ids=bytes.hex)
def test_nesting_at_the_limit_is_taken_and_read(piece: bytes) -> None:
    message = deserialize_zmq_message(COMMAND + piece * 128 + b"\xc0")
    found, depth = message.payload, 0  # type: ignore[union-attr]
    while found is not None:
        found = found[0] if isinstance(found, list) else found["k"]
        depth += 1
    assert depth == 128
    assert deserialize_zmq_message(serialize_zmq_message(message)) == message


@pytest.mark.parametrize("number", [-1, 1.0, True, False, None, "1", b"1", [1], 2**64 - 1])
def test_only_a_whole_number_is_a_limit(number: Any) -> None:
    data = msgpack.packb(["list_agents_request", "r", None, number])
    if number is None or number == 2**64 - 1:
        assert deserialize_zmq_message(data).limit == number  # type: ignore[union-attr]
    else:
        with pytest.raises(ProtocolError):
            deserialize_zmq_message(data)


@pytest.mark.parametrize(
    "text",
    [b"\x80", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xed\xa0\x80",
     b"\xed\xbf\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5",
     b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"abcdefgh\xff", b"\xffabcdefgh",
     b"abcdefg\xc3", b"\xe2\x82\xac" * 5 + b"\xe2\x82"],
    ids=bytes.hex,
)  # fmt: skip
@pytest.mark.parametrize("place", ["request_id", "payload", "key", "metadata", "line"])
def test_broken_utf8_is_refused_everywhere(text: bytes, place: str) -> None:
    broken = bytes([0xA0 | len(text)]) + text
    data = {
        "request_id": b"\x92" + msgpack.packb("health_check_request") + broken,
        "payload": COMMAND + broken,
        "key": COMMAND + b"\x81" + broken + b"\xc0",
        "metadata": HEALTH + b"\x81\xa1k" + broken,
        "line": LINES + b"\x91" + broken,
    }[place]
    with pytest.raises(ProtocolError):
        deserialize_zmq_message(data)


@pytest.mark.parametrize(
    "text", ["", "a\0b", "é", "€", "\U0001f600", "\ud7ff\ue000\uffff", "\U0010ffff"]
)
def test_every_kind_of_character_survives(text: str) -> None:
    data = msgpack.packb(["control_command", text, AGENT, "pause", {text: text}])
    message = deserialize_zmq_message(data)
    assert message.request_id == text  # type: ignore[union-attr]
    assert message.payload == {text: text}  # type: ignore[union-attr]
    assert serialize_zmq_message(message) == data
