"""Whatever is done with messages, taken or refused: no object stays behind."""

from __future__ import annotations

import copy
import gc
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from descartes_fast import (
    AgentStatus,
    ControlCommand,
    FieldError,
    ProtocolError,
    SpawnRequest,
    deserialize_zmq_message,
    from_builtins,
    peek_header,
    replace,
    serialize_zmq_message,
    to_builtins,
)
from wire.cases import DECODE_CASES, VECTORS

WIRE = [bytes.fromhex(line["hex"]) for line in VECTORS + DECODE_CASES if len(line["hex"]) < 4000]
GOOD = [bytes.fromhex(line["hex"]) for line in VECTORS if len(line["hex"]) < 4000]


def decode_whole_and_cut() -> None:
    for data in WIRE:
        for part in (data, data[: len(data) // 2], data[:-1], data + b"\xc0"):
            with suppress(ProtocolError):
                deserialize_zmq_message(part)
            peek_header(part)


def read_every_field() -> None:
    for data in GOOD:
        message = deserialize_zmq_message(data)
        for name in message.__match_args__:
            with suppress(OverflowError):
                getattr(message, name)
                # Interned: the interpreter's cache of attributes keeps names that are not.
                getattr(message, sys.intern(f"{name}_ns"), None)
        repr(message)
        to_builtins(message)


def write_and_compare() -> None:
    for data in GOOD:
        message = deserialize_zmq_message(data)
        serialize_zmq_message(message)
        assert from_builtins(to_builtins(message)) == message
        # Not through pickle: its names stay in the interpreter's cache of attributes.
        restore, arguments = message.__reduce__()
        assert restore(*arguments) == message
        copy.copy(message)
        assert message == replace(message)


def make_and_fail() -> None:
    for bad in ({"request_id": 1}, {"payload": [object()]}, {"payload": {1: 2}}, {"x": 1},
                {"agent_id": "x"}, {"command_type": "x"}, {"request_id": "\ud800"},
                {"payload": "\ud800"}, {"payload": float("inf")}, {}):  # fmt: skip
        with pytest.raises(FieldError):
            ControlCommand(**bad)  # type: ignore[arg-type]
        good = deserialize_zmq_message(GOOD[12])
        if bad:
            with pytest.raises(FieldError):
                replace(good, **bad)
    with pytest.raises(FieldError):
        SpawnRequest(request_id="r", config="x")  # type: ignore[arg-type]


def memory_of(work: Callable[[], None], times: int) -> int:
    for _ in range(times):
        work()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.parametrize(
    "work", [decode_whole_and_cut, read_every_field, write_and_compare, make_and_fail]
)
def test_memory_does_not_grow(work: Callable[[], None]) -> None:
    tracemalloc.start()
    try:
        # The first turns fill caches: the interpreter's, and those of keys and ids.
        begin = memory_of(work, 3)
        end = memory_of(work, 12)
    finally:
        tracemalloc.stop()
    # Half of the smallest object for each message and turn.
    assert end - begin < 12 * len(GOOD) * 8


def test_counts_of_shared_objects_stay() -> None:
    shared: list[Any] = [AgentStatus.RUNNING, ControlCommand, SpawnRequest, GOOD[0]]
    work = (decode_whole_and_cut, read_every_field, write_and_compare, make_and_fail)
    for task in work:
        task()
    before = [sys.getrefcount(item) for item in shared]
    for _ in range(5):
        for task in work:
            task()
    gc.collect()
    after = [sys.getrefcount(item) for item in shared]
    assert [b - a for a, b in zip(before, after, strict=True)] == [0, 0, 0, 0]
