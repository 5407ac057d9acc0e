"""Objects that say wrong things of themselves make a message that is right, or a FieldError."""

from __future__ import annotations

import contextlib
import gc
import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from descartes_fast import (
    BatchControlCommand,
    ControlCommand,
    ControlCommandType,
    FieldError,
    HealthCheckResponse,
    ListAgentsRequest,
    OutputQueryResponse,
    StatusUpdate,
    StatusUpdateType,
    deserialize_zmq_message,
    serialize_zmq_message,
    to_builtins,
)

ID = uuid.UUID(int=7)


def command(**fields: Any) -> ControlCommand:
    given: dict[str, Any] = {
        "request_id": "r",
        "agent_id": ID,
        "command_type": ControlCommandType.PAUSE,
    }
    return ControlCommand(**(given | fields))


def batch(ids: Any) -> BatchControlCommand:
    return BatchControlCommand(request_id="r", agent_ids=ids, command_type=ControlCommandType.PAUSE)


def lines(value: Any) -> Any:
    made = OutputQueryResponse(request_id="r", agent_id=ID, success=True, lines=value)
    assert deserialize_zmq_message(serialize_zmq_message(made)) == made
    return made.lines


class LyingUuid(uuid.UUID):
    @property
    def bytes(self) -> bytes:
        return b"short"

    def __str__(self) -> str:
        return "no id"


def without_number(number: Any = None) -> uuid.UUID:
    made = uuid.UUID.__new__(uuid.UUID)
    if number is not None:
        object.__setattr__(made, "int", number)
    return made


def test_uuid_subclass_that_lies_is_taken_by_its_number() -> None:
    made = command(agent_id=LyingUuid(int=7))
    assert made == command()
    assert type(made.agent_id) is uuid.UUID
    assert made.agent_id == ID
    assert to_builtins(made) == to_builtins(command())
    assert batch([LyingUuid(int=7)]).agent_ids == (ID,)


@pytest.mark.parametrize("number", [None, -1, 2**128, "7", 7.0])
def test_uuid_without_its_number_is_refused(number: Any) -> None:
    with pytest.raises(FieldError) as caught:
        command(agent_id=without_number(number))
    assert caught.value.path == "control_command.agent_id"
    with pytest.raises(FieldError) as caught:
        batch([without_number(number)])
    assert caught.value.path == "batch_control_command.agent_ids"


LIES: list[Callable[[Any], int]] = [
    lambda self: 2**62,
    lambda self: 2**70,
    lambda self: -5,
    lambda self: 1 // 0,
]


@pytest.mark.parametrize("length", LIES)
@pytest.mark.parametrize("kind", [list, tuple])
def test_list_that_lies_about_its_length_is_taken_by_its_elements(
    kind: type, length: Callable[[Any], int]
) -> None:
    liar = type("Liar", (kind,), {"__len__": length, "__iter__": lambda self: iter([1, 2, 3])})
    assert lines(liar(["a", "b"])) == ("a", "b")
    assert command(payload=[liar([None])]).payload == [[None]]
    assert batch(liar([ID])).agent_ids == (ID,)


class Letters(Sequence[str]):
    def __init__(self, count: int, claimed: int) -> None:
        self.real, self.claimed = count, claimed

    def __len__(self) -> int:
        return self.claimed

    def __getitem__(self, index: Any) -> Any:
        if index >= self.real:
            raise IndexError
        return "x"


class Entries(Mapping[str, str]):
    def __init__(self, count: int, claimed: int) -> None:
        self.count, self.claimed = count, claimed

    def __len__(self) -> int:
        return self.claimed

    def __iter__(self) -> Iterator[str]:
        return map(str, range(self.count))

    def __getitem__(self, key: str) -> str:
        return "x"


@pytest.mark.parametrize("claimed", [0, 1, 2**62, 2**70])
def test_sequence_and_mapping_that_lie_about_their_length_are_taken_by_their_elements(
    claimed: int,
) -> None:
    assert lines(Letters(3, claimed)) == ("x", "x", "x")
    made = HealthCheckResponse(
        request_id="r", healthy=True, protocol_version="1", metadata=Entries(2, claimed)
    )
    assert made.metadata == {"0": "x", "1": "x"}


class Endless(Letters):
    def __iter__(self) -> Iterator[str]:
        return itertools.repeat("x")


def test_sequence_without_an_end_is_refused() -> None:
    with pytest.raises(FieldError, match="more elements"):
        lines(Endless(1, 1))


@pytest.mark.parametrize("number", [10**5000, -(10**5000), 2**64], ids=["huge", "below", "65 bits"])
def test_number_of_thousands_of_digits_is_refused_in_words(number: int) -> None:
    refused: list[Callable[[], object]] = [
        lambda: ListAgentsRequest(request_id="r", limit=number),
        lambda: command(payload=[number]),
        lambda: StatusUpdate(
            agent_id=ID, update_type=StatusUpdateType.ERROR, timestamp=number * 10**9
        ),
    ]
    for make in refused:
        with pytest.raises(FieldError) as caught:
            make()
        assert len(str(caught.value)) < 200


def test_int_subclass_that_lies_is_taken_by_its_number() -> None:
    def fail(*_: object) -> int:
        raise RuntimeError

    liar = type("Liar", (int,), dict.fromkeys(("__int__", "__index__", "__le__", "__gt__"), fail))
    assert ListAgentsRequest(request_id="r", limit=liar(5)).limit == 5
    assert type(ListAgentsRequest(request_id="r", limit=liar(5)).limit) is int
    assert command(payload=liar(2**63 + 5)).payload == 2**63 + 5
    with pytest.raises(FieldError):
        command(payload=liar(2**65))


class ChangesADict:
    """Garbage in a cycle: a collection, whenever it comes, replaces what a dict holds."""

    def __init__(self, entries: dict[str, Any]) -> None:
        self.entries = entries
        self.cycle = self

    def __del__(self) -> None:
        self.entries.clear()
        self.entries.update(dict.fromkeys(map(str, range(50)), 7))


@pytest.mark.parametrize("allocations", range(30))
def test_dict_that_a_collection_changes_while_it_is_written_is_written_whole_or_refused(
    allocations: int,
) -> None:
    # Lists so long that the interpreter has no tuple at hand for them.
    entries: dict[str, Any] = {f"key {i}": [i * 1.5 + j for j in range(40)] for i in range(20)}
    message = None
    threshold = gc.get_threshold()
    gc.collect()
    gc.disable()
    try:
        ChangesADict(entries)
        gc.set_threshold(gc.get_count()[0] + allocations, 1000, 1000)
        gc.enable()
        with contextlib.suppress(FieldError):
            message = command(payload=entries)
    finally:
        gc.set_threshold(*threshold)
        gc.enable()
    if message is not None:
        assert deserialize_zmq_message(serialize_zmq_message(message)) == message
        assert len(message.payload) in (20, 50)
