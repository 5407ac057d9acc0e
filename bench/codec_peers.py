"""The same messages for the libraries beside ours: msgspec typed alike, the others generic."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgpack
import msgspec
import ormsgpack

from descartes_fast import deserialize_zmq_message, serialize_zmq_message, to_builtins
from descartes_fast._core.schema import ENVELOPES, RECORDS, Field, Record

from .codec_messages import MESSAGES


@dataclass(frozen=True)
class Codec:
    """One library and one message: what it encodes, its bytes, and its two functions."""

    library: str
    value: Any
    data: bytes
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class _Time(msgspec.Struct, array_like=True, frozen=True):
    secs: int
    nanos: int


_TYPES: dict[str, Any] = {
    "text": str,
    "boolean": bool,
    "u64": int,
    "i64": int,
    "uuid": UUID,
    "time": _Time,
    "octets": list[int],
    "value": Any,
    "text_map": dict[str, str],
    "value_map": dict[str, Any],
    "text_list": list[str],
    "uuid_list": list[UUID],
}


def _struct(record: Record, known: dict[str, Any]) -> Any:
    """Return the msgspec type of one record of our table."""
    required = [(f.name, _type(f, known)) for f in record.fields if f.required]
    # msgspec takes the fields in order, those with a default last; the table has none between
    # required ones but for status and message of a status update, which therefore are given one.
    fields: list[Any] = []
    last = max((i for i, f in enumerate(record.fields) if f.required), default=-1)
    for i, f in enumerate(record.fields):
        if i <= last:
            fields.append((f.name, _type(f, known)))
        elif f.optional:
            fields.append((f.name, _type(f, known), None))
        elif isinstance(f.default, (dict, tuple)):
            factory: Any = dict if isinstance(f.default, dict) else list
            fields.append((f.name, _type(f, known), msgspec.field(default_factory=factory)))
        else:
            fields.append((f.name, _type(f, known), f.default))
    del required
    return msgspec.defstruct(
        record.name, fields, array_like=True, frozen=True, tag=record.tag or None
    )


def _type(f: Field, known: dict[str, Any]) -> Any:
    if f.kind == "word":
        assert isinstance(f.of, type)
        assert issubclass(f.of, StrEnum)
        kind: Any = f.of
    elif f.kind == "nested":
        kind = known[str(f.of)]
    elif f.kind == "nested_list":
        kind = list[known[str(f.of)]]
    else:
        kind = _TYPES[f.kind]
    return kind | None if f.optional and kind is not Any else kind


def _msgspec() -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    known: dict[str, Any] = {}
    for record in RECORDS:
        known[record.name] = _struct(record, known)
    union: Any = known[ENVELOPES[0].name]
    for record in ENVELOPES[1:]:
        union |= known[record.name]
    decoder = msgspec.msgpack.Decoder(union)
    encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
    return encoder.encode, decoder.decode


def codecs(name: str) -> list[Codec]:
    """Return ours first, then the others, for the message of that name."""
    message = MESSAGES[name]
    data = serialize_zmq_message(message)
    spec_encode, spec_decode = _msgspec()
    generic = msgpack.unpackb(data, strict_map_key=False)
    form = to_builtins(message)
    found = [
        Codec("descartes-fast", message, data, serialize_zmq_message, deserialize_zmq_message),
        Codec("msgspec", spec_decode(data), data, spec_encode, spec_decode),
        Codec("msgpack", generic, data, msgpack.packb, msgpack.unpackb),
        Codec("ormsgpack", generic, data, ormsgpack.packb, ormsgpack.unpackb),
        Codec(
            "json",
            form,
            json.dumps(form).encode(),
            lambda value: json.dumps(value).encode(),
            json.loads,
        ),
    ]
    for codec in found:
        # Outside the timed part: each library gives back what it was given.
        assert codec.decode(codec.encode(codec.value)) == codec.value, codec.library
    return found
