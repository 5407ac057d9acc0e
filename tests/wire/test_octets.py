"""Output on the wire, an array of small ints: in whatever runs it comes, and wherever it breaks."""

from __future__ import annotations

import itertools
import random
from uuid import UUID

import msgpack
import pytest

from descartes_fast import (
    LogStreamMessage,
    LogStreamType,
    ProtocolError,
    deserialize_zmq_message,
    serialize_zmq_message,
)

AGENT = UUID(int=7)
KINDS = (0x41, 0xE9, 0xCC, 0x7F, 0x80)
LONGER_FORMS = (b"\xcd\0%c", b"\xce\0\0\0%c", b"\xcf\0\0\0\0\0\0\0%c", b"\xd1\0%c", b"\xd2\0\0\0%c")


def shortest(octet: int) -> bytes:
    return bytes([octet]) if octet < 0x80 else bytes([0xCC, octet])


def array_of(elements: list[bytes]) -> bytes:
    header: bytes = msgpack.Packer().pack_array_header(len(elements))
    return header + b"".join(elements)


def message_with(data: bytes) -> LogStreamMessage:
    made = LogStreamMessage(agent_id=AGENT, stream_type=LogStreamType.STDOUT, data=data, sequence=5)
    read = deserialize_zmq_message(serialize_zmq_message(made))
    assert isinstance(read, LogStreamMessage)
    assert read == made
    return made


def written_around(data: bytes) -> tuple[bytes, bytes]:
    """Return what a message has before and behind the array of its data."""
    whole = serialize_zmq_message(message_with(data))
    array = array_of([shortest(octet) for octet in data])
    before, found, behind = whole.partition(array)
    assert found, "the data is written in another way"
    return before, behind


def read(body: bytes) -> bytes:
    message = deserialize_zmq_message(body)
    assert isinstance(message, LogStreamMessage)
    return message.data


def runs(draw: random.Random, size: int) -> bytes:
    """Return bytes in runs of one kind each, as text has them."""
    data = b""
    while len(data) < size:
        length = draw.choice((1, 1, 2, 3, 7, 8, 9, 20))
        low, high = draw.choice(((0, 0x80), (0x80, 0x100), (0xCC, 0xCD), (0, 0x100)))
        data += bytes(draw.randrange(low, high) for _ in range(length))
    return data[:size]


@pytest.mark.parametrize("size", range(7))
def test_every_pattern_of_kinds_is_written_and_read_at_every_place(size: int) -> None:
    for middle in itertools.product(KINDS, repeat=size):
        written_around(
            b"some text in front of "[: 22 - len(middle)] + bytes(middle) + b"and behind"
        )


@pytest.mark.parametrize("seed", range(40))
def test_runs_of_every_length_are_written_and_read(seed: int) -> None:
    draw = random.Random(seed)
    for size in range(120):
        written_around(runs(draw, size))
    written_around(runs(draw, 20_000))


def test_longer_forms_of_an_octet_are_read_wherever_they_stand() -> None:
    draw = random.Random(3)
    for size in range(1, 60):
        data = runs(draw, size)
        before, behind = written_around(data)
        for place in range(size):
            elements = [shortest(octet) for octet in data]
            for form in (b"\xcc%c", *LONGER_FORMS):
                elements[place] = form % data[place]
                assert read(before + array_of(elements) + behind) == data


@pytest.mark.parametrize("broken", [b"\xff", b"\xc0", b"\xcd\1\0", b"\xd0\xff", b"\xa1x", b"\xc1"])
def test_what_is_no_octet_is_refused_with_its_index(broken: bytes) -> None:
    draw = random.Random(4)
    for size in range(1, 60):
        data = runs(draw, size)
        before, behind = written_around(data)
        place = draw.randrange(size)
        elements = [shortest(octet) for octet in data]
        elements[place] = broken
        with pytest.raises(ProtocolError) as caught:
            read(before + array_of(elements) + behind)
        assert caught.value.path == f"log_stream.data[{place}]"


@pytest.mark.parametrize("seed", range(30))
def test_data_that_is_cut_off_is_refused_wherever_that_is(seed: int) -> None:
    data = runs(random.Random(seed), 60)
    whole = serialize_zmq_message(message_with(data))
    for size in range(len(whole)):
        with pytest.raises(ProtocolError):
            deserialize_zmq_message(whole[:size])
