"""The same messages for the libraries beside ours: msgspec typed alike, the others generic."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgpack
import msgspec
import ormsgpack

from descartes_fast import deserialize_zmq_message, serialize_zmq_message, to_builtins
from descartes_fast._core.schema import ENVELOPES, RECORDS, Field, Record

from .codec_messages import MESSAGES
from .codec_targets import OURS, PEER, PLAIN

LIBRARIES = (OURS, PEER, "msgpack", "ormsgpack", "json")
TYPED = (OURS, PEER)
DECODERS = (*LIBRARIES, PLAIN)


@dataclass(frozen=True)
class Codec:
    """One library and one message: what it encodes, its bytes, and its two functions."""

    value: Any
    data: bytes
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class Time(msgspec.Struct, array_like=True, frozen=True):
    """A point in time for msgspec, in the wire's two numbers."""

    secs: int
    nanos: int


TYPES: dict[str, Any] = {
    "text": str,
    "boolean": bool,
    "u64": int,
    "i64": int,
    "uuid": UUID,
    "time": Time,
    "octets": list[int],
    "value": Any,
    "text_map": dict[str, str],
    "value_map": dict[str, Any],
    "text_list": list[str],
    "uuid_list": list[UUID],
}


def codec(library: str, name: str) -> Codec:
    """Return one library's codec for the message of that name, checked to give it back."""
    message = MESSAGES[name]
    data = serialize_zmq_message(message)
    if library == OURS:
        found = Codec(message, data, serialize_zmq_message, deserialize_zmq_message)
    elif library in (PEER, PLAIN):
        decode = msgspec.msgpack.Decoder(msgspec_union(library == PLAIN)).decode
        encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
        found = Codec(decode(data), data, encode, decode)
    elif library == "json":
        form = to_builtins(message)
        found = Codec(form, json.dumps(form).encode(), lambda v: json.dumps(v).encode(), json.loads)
    else:
        module: Any = {"msgpack": msgpack, "ormsgpack": ormsgpack}[library]
        found = Codec(msgpack.unpackb(data), data, module.packb, module.unpackb)
    assert found.decode(found.encode(found.value)) == found.value
    return found


def msgspec_union(plain: bool) -> Any:
    """Return the union of all messages, as msgspec types made from the same table."""
    known: dict[str, Any] = {}
    types = TYPES | ({"uuid": bytes, "uuid_list": list[bytes], "word": str} if plain else {})
    for record in RECORDS:
        known[record.name] = _struct(record, known, types)
    union: Any = known[ENVELOPES[0].name]
    for record in ENVELOPES[1:]:
        union |= known[record.name]
    return union


def _struct(record: Record, known: dict[str, Any], types: dict[str, Any]) -> Any:
    fields: list[Any] = []
    last_required = max((i for i, f in enumerate(record.fields) if f.required), default=-1)
    for i, field in enumerate(record.fields):
        kind = _type(field, known, types)
        if i <= last_required:
            fields.append((field.name, kind))
        elif field.optional:
            fields.append((field.name, kind, None))
        elif isinstance(field.default, (dict, tuple)):
            factory: Any = dict if isinstance(field.default, dict) else list
            fields.append((field.name, kind, msgspec.field(default_factory=factory)))
        else:
            fields.append((field.name, kind, field.default))
    return msgspec.defstruct(
        record.name, fields, array_like=True, frozen=True, tag=record.tag or None
    )


def _type(field: Field, known: dict[str, Any], types: dict[str, Any]) -> Any:
    kind: Any
    if field.kind in types:
        kind = types[field.kind]
    elif field.kind == "word":
        kind = field.of
    elif field.kind == "nested":
        kind = known[str(field.of)]
    else:
        kind = list[known[str(field.of)]]  # type: ignore[misc]
    return kind | None if field.optional and kind is not Any else kind
