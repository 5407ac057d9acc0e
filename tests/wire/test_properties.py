"""Any message survives encoding and decoding, in bytes and in its JSON form."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import descartes_fast
from descartes_fast import (
    deserialize_zmq_message,
    from_builtins,
    replace,
    serialize_zmq_message,
    to_builtins,
)
from descartes_fast._core.schema import ENVELOPES, RECORDS, Field
from wire import slow_codec

U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(TEXT, inner, max_size=20),
    max_leaves=30,
)
TIME_NS = st.integers(0, (2**63 - 1) * 10**9 + 10**9 - 1)

KINDS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXT,
    "boolean": st.booleans(),
    "u64": U64,
    "i64": st.integers(-(2**63), 2**63 - 1),
    "uuid": st.uuids(),
    "time": TIME_NS,
    "octets": st.binary(max_size=300),
    "value": VALUE,
    "text_map": st.dictionaries(TEXT, TEXT),
    "value_map": st.dictionaries(TEXT, VALUE, max_size=4),
    "text_list": st.lists(TEXT),
    "uuid_list": st.lists(st.uuids()),
}


def field_values(field: Field) -> st.SearchStrategy[Any]:
    if field.kind == "word":
        values: st.SearchStrategy[Any] = st.sampled_from(field.of)  # type: ignore[arg-type]
    elif field.kind == "nested":
        values = records(str(field.of))
    elif field.kind == "nested_list":
        values = st.lists(records(str(field.of)), max_size=20)
    else:
        values = KINDS[field.kind]
    return st.none() | values if field.optional else values


def field_map(name: str) -> dict[str, st.SearchStrategy[Any]]:
    record = next(record for record in RECORDS if record.name == name)
    return {field.name: field_values(field) for field in record.fields}


def records(name: str) -> st.SearchStrategy[Any]:
    return st.builds(getattr(descartes_fast, name), **field_map(name))


@pytest.mark.parametrize("name", [record.name for record in ENVELOPES])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_message_survives_every_form(name: str, data: st.DataObject) -> None:
    given_fields = data.draw(st.fixed_dictionaries(field_map(name)))
    message = getattr(descartes_fast, name)(**given_fields)
    for field, value in given_fields.items():
        if field in ("timestamp", "started_at", "paused_at"):
            assert getattr(message, f"{field}_ns") == value
        else:
            found = getattr(message, field)
            assert (list(found) if isinstance(found, tuple) else found) == value

    wire = serialize_zmq_message(message)
    assert deserialize_zmq_message(wire) == message
    assert serialize_zmq_message(deserialize_zmq_message(wire)) == wire

    form = to_builtins(message)
    assert from_builtins(form) == message
    assert serialize_zmq_message(from_builtins(form)) == wire
    assert json.loads(json.dumps(form)) == form
    assert to_builtins(deserialize_zmq_message(msgpack.packb(form))) == form

    assert slow_codec.decode(wire) == form
    assert slow_codec.encode(form) == wire
    assert replace(message) == message


@settings(max_examples=200, deadline=None)
@given(value=VALUE)
def test_value_comes_back_with_its_types(value: Any) -> None:
    command = descartes_fast.ControlCommand(
        request_id="r",
        agent_id=UUID(int=0),
        command_type=descartes_fast.ControlCommandType.SIGNAL,
        payload=value,
    )
    again = deserialize_zmq_message(serialize_zmq_message(command))
    assert repr(again.payload) == repr(value)  # type: ignore[union-attr]


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200))
def test_random_bytes_get_the_same_answer_from_both_codecs(data: bytes) -> None:
    from wire.test_independent_codec import compare

    compare(data)
