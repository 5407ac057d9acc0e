"""Many threads on the same messages and the same bytes: one object each, no crash, no mix-up."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from descartes_fast import (
    ProtocolError,
    deserialize_zmq_message,
    from_builtins,
    serialize_zmq_message,
    to_builtins,
)
from wire.cases import VECTORS

LINES = [line for line in VECTORS if len(line["hex"]) < 2000]


@pytest.fixture(autouse=True)
def _switch_often() -> Any:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_in_threads(work: Any, count: int = 8) -> None:
    """Run ``work(number)`` in threads that begin together; raise what one of them raised."""
    failures: list[BaseException] = []
    begin = threading.Barrier(count)

    def run(number: int) -> None:
        begin.wait()
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_threads_that_read_a_field_first_together_see_one_object() -> None:
    line = next(line for line in LINES if line["name"] == "control_command/custom_action")
    data = bytes.fromhex(line["hex"])
    messages = [deserialize_zmq_message(data) for _ in range(500)]
    seen: list[list[Any]] = [[] for _ in range(8)]

    def read(number: int) -> None:
        for message in messages:
            assert message.agent_id is not None  # type: ignore[union-attr]
            seen[number].append(message.payload)  # type: ignore[union-attr]

    run_in_threads(read)
    for payloads in zip(*seen, strict=True):
        assert all(payload is payloads[0] for payload in payloads)
        assert payloads[0] == line["message"]["payload"]


def test_threads_on_all_messages_do_not_disturb_each_other() -> None:
    shared = [deserialize_zmq_message(bytes.fromhex(line["hex"])) for line in LINES]
    expected = [serialize_zmq_message(message) for message in shared]

    def work(number: int) -> None:
        for turn in range(6):
            for index in range(len(LINES)):
                at = (index * 7 + number * 13 + turn) % len(LINES)
                line, message = LINES[at], shared[at]
                assert serialize_zmq_message(message) == expected[at]
                assert to_builtins(message) == line["message"]
                assert from_builtins(line["message"]) == message
                assert repr(message)
                with pytest.raises(ProtocolError):
                    deserialize_zmq_message(expected[at][:-1])

    run_in_threads(work)


def test_buffer_that_changes_while_it_is_read_gives_a_message_or_a_refusal() -> None:
    line = next(line for line in LINES if line["name"] == "spawn_request/environment_16")
    whole = bytes.fromhex(line["hex"])
    buffer = bytearray(whole)
    done = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            for turn in range(3000):
                buffer[turn % len(buffer)] ^= 0xFF
                buffer[:] = whole
            done.set()
            return
        while not done.is_set():
            try:
                message = deserialize_zmq_message(buffer)
            except ProtocolError:
                continue
            assert to_builtins(message)["type"]

    run_in_threads(work, 4)
