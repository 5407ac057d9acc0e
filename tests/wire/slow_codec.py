"""A second codec, written on ``msgpack`` from the format's description, slow and plain.

It shares nothing with the core but the table of messages. Decoding gives the JSON form, or
raises :class:`Refused`; encoding takes the JSON form.
"""

from __future__ import annotations

import math
import re
from typing import Any
from uuid import UUID

import msgpack

from descartes_fast._core.schema import ENVELOPES, RECORDS, Field, Record

BY_TAG = {record.tag: record for record in ENVELOPES}
BY_NAME = {record.name: record for record in RECORDS}

UUID_TEXT = re.compile(
    r"(?:(?P<simple>[0-9a-fA-F]{32})"
    r"|(?P<urn>urn:uuid:)?(?P<brace>\{)?"
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"(?(brace)\}))",
    re.ASCII,
)


class Refused(Exception):
    """The bytes are no message."""


class NotComparable(Exception):
    """``msgpack`` itself reads more into the bytes than the format says (its timestamps)."""


class Pairs(list[tuple[Any, Any]]):
    """A map as it came, equal keys and all."""


def decode(data: bytes) -> dict[str, Any]:
    """Return the JSON form of the message in ``data``."""
    if len(data) > 10 * 1024 * 1024:
        raise Refused("too large")
    try:
        tree = msgpack.unpackb(
            data,
            raw=False,
            # Broken strings are refused where a string is read, and skipped where it is not.
            unicode_errors="surrogateescape",
            strict_map_key=False,
            object_pairs_hook=Pairs,
            ext_hook=lambda code, content: msgpack.ExtType(code, content),
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        if "imestamp" in str(error):
            raise NotComparable from None
        raise Refused(str(error)) from None
    if isinstance(tree, Pairs):
        entries = _entries(tree)
        tags = [value for key, value in entries if key == "type"]
        if len(tags) != 1:
            raise Refused("no type, or two")
        record = _tagged(tags[0])
        fields = _named_fields(record, [pair for pair in entries if pair[0] != "type"])
    elif isinstance(tree, list) and tree:
        record = _tagged(tree[0])
        fields = _listed_fields(record, tree[1:])
    else:
        raise Refused("no envelope")
    return {"type": record.tag} | fields


def encode(form: dict[str, Any]) -> bytes:
    """Return the compact form of a JSON form that ``decode`` gave."""
    record = BY_TAG[form["type"]]
    body = [record.tag, *(_written(field, form[field.name]) for field in record.fields)]
    packed: bytes = msgpack.packb(body, use_bin_type=True)
    return packed


def _tagged(tag: Any) -> Record:
    if not isinstance(tag, str) or tag not in BY_TAG:
        raise Refused("no known tag")
    return BY_TAG[tag]


def _entries(pairs: Pairs) -> Pairs:
    if not all(isinstance(key, str) for key, _ in pairs):
        raise Refused("a key that is no string")
    return pairs


def _record(record: Record, tree: Any) -> dict[str, Any]:
    if isinstance(tree, Pairs):
        return _named_fields(record, _entries(tree))
    if isinstance(tree, list):
        return _listed_fields(record, tree)
    raise Refused("no record")


def _listed_fields(record: Record, items: list[Any]) -> dict[str, Any]:
    if len(items) > len(record.fields):
        raise Refused("too many fields")
    found = {}
    for index, field in enumerate(record.fields):
        found[field.name] = _read(field, items[index]) if index < len(items) else _absent(field)
    return found


def _named_fields(record: Record, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    known = {field.name: field for field in record.fields}
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key not in known:
            if _depth(value) > 135:
                raise Refused("skipped, but too deep")
        elif key in found:
            raise Refused("given twice")
        else:
            found[key] = _read(known[key], value)
    return {name: found[name] if name in found else _absent(field) for name, field in known.items()}


def _absent(field: Field) -> Any:
    if field.required:
        raise Refused(f"{field.name} is missing")
    if field.optional:
        return None
    return list(field.default) if isinstance(field.default, tuple) else field.default


def _read(field: Field, tree: Any) -> Any:
    if tree is None and field.optional:
        return None
    return READERS[field.kind](field, tree)


def _text(_: Field | None, tree: Any) -> str:
    try:
        if isinstance(tree, bytes):
            return tree.decode()
        if isinstance(tree, str):
            tree.encode()
            return tree
    except UnicodeError:
        pass
    raise Refused("no string")


def _number(low: int, high: int) -> Any:
    def read(_: Field | None, tree: Any) -> int:
        if type(tree) is not int or not low <= tree <= high:
            raise Refused("no such number")
        return tree

    return read


_u8 = _number(0, 2**8 - 1)
_u32 = _number(0, 2**32 - 1)
_u64 = _number(0, 2**64 - 1)
_i64 = _number(-(2**63), 2**63 - 1)


def _boolean(_: Field, tree: Any) -> bool:
    if type(tree) is not bool:
        raise Refused("no bool")
    return tree


def _word(field: Field, tree: Any) -> str:
    if isinstance(tree, Pairs):
        if len(tree) != 1 or tree[0][1] is not None:
            raise Refused("no word in a map")
        tree = tree[0][0]
    assert isinstance(field.of, type)
    words = {str(member.value) for member in field.of}
    if not isinstance(tree, str) or tree not in words:
        raise Refused("no word")
    return tree


def _uuid(_: Field | None, tree: Any) -> str:
    if isinstance(tree, bytes) and len(tree) == 16:
        return str(UUID(bytes=tree))
    if isinstance(tree, str):
        found = UUID_TEXT.fullmatch(tree)
        if found and not (found["urn"] and found["brace"]):
            return str(UUID(tree))
    raise Refused("no id")


def _time(_: Field, tree: Any) -> dict[str, int]:
    if isinstance(tree, Pairs):
        if sorted(str(key) for key, _ in tree) != ["nanos_since_epoch", "secs_since_epoch"]:
            raise Refused("no time")
        by_name = dict(_entries(tree))
        tree = [by_name["secs_since_epoch"], by_name["nanos_since_epoch"]]
    if not isinstance(tree, list) or len(tree) != 2:
        raise Refused("no time")
    secs, nanos = _u64(None, tree[0]), _u32(None, tree[1])
    secs, nanos = secs + nanos // 10**9, nanos % 10**9
    if secs > 2**63 - 1:
        raise Refused("too late")
    return {"secs_since_epoch": secs, "nanos_since_epoch": nanos}


def _value(_: Field | None, tree: Any) -> Any:
    if _depth(tree) > 128 or _count(tree) > 100_000:
        raise Refused("too deep or too many")
    return _json(tree)


def _json(tree: Any) -> Any:
    if tree is None or type(tree) is bool:
        return tree
    if type(tree) is int:
        return tree
    if type(tree) is float:
        return tree if math.isfinite(tree) else None
    if isinstance(tree, str):
        return _text(None, tree)
    if isinstance(tree, Pairs):
        return {_text(None, key): _json(value) for key, value in _entries(tree)}
    if isinstance(tree, list):
        return [_json(item) for item in tree]
    raise Refused("not JSON")


def _map(tree: Any) -> Pairs:
    if not isinstance(tree, Pairs):
        raise Refused("no map")
    return tree


def _text_map(_: Field, tree: Any) -> dict[str, str]:
    return {_text(None, key): _text(None, value) for key, value in _map(tree)}


def _value_map(_: Field, tree: Any) -> dict[str, Any]:
    if sum(_count(value) for _, value in _map(tree)) > 100_000:
        raise Refused("too many")
    return {_text(None, key): _value(None, value) for key, value in tree}


def _list(tree: Any) -> list[Any]:
    if not isinstance(tree, list) or isinstance(tree, Pairs):
        raise Refused("no list")
    return tree


READERS: dict[str, Any] = {
    "text": _text,
    "boolean": _boolean,
    "u64": lambda _, tree: _u64(None, tree),
    "i64": lambda _, tree: _i64(None, tree),
    "word": _word,
    "uuid": _uuid,
    "time": _time,
    "octets": lambda _, tree: [_u8(None, item) for item in _list(tree)],
    "nested": lambda field, tree: _record(BY_NAME[field.of], tree),
    "value": _value,
    "text_map": _text_map,
    "value_map": _value_map,
    "text_list": lambda _, tree: [_text(None, item) for item in _list(tree)],
    "uuid_list": lambda _, tree: [_uuid(None, item) for item in _list(tree)],
    "nested_list": lambda field, tree: [_record(BY_NAME[field.of], item) for item in _list(tree)],
}


def _depth(tree: Any) -> int:
    """Return how many containers stand around the innermost value, itself one included."""
    deepest = 0
    stack = [(tree, 1)]
    while stack:
        found, depth = stack.pop()
        if isinstance(found, list):
            deepest = max(deepest, depth)
            for item in found:
                inner = item if isinstance(found, Pairs) else (item,)
                stack.extend((part, depth + 1) for part in inner)
    return deepest


def _count(tree: Any) -> int:
    """Return the number of values in a value: itself and those inside, keys not counted."""
    if isinstance(tree, Pairs):
        return 1 + sum(_count(value) for _, value in tree)
    if isinstance(tree, list):
        return 1 + sum(_count(item) for item in tree)
    return 1


def _written(field: Field, value: Any) -> Any:
    if value is None:
        return None
    if field.kind == "uuid":
        return UUID(value).bytes
    if field.kind == "uuid_list":
        return [UUID(item).bytes for item in value]
    if field.kind == "time":
        return [value["secs_since_epoch"], value["nanos_since_epoch"]]
    if field.kind == "nested":
        return _written_record(BY_NAME[str(field.of)], value)
    if field.kind == "nested_list":
        return [_written_record(BY_NAME[str(field.of)], item) for item in value]
    return value


def _written_record(record: Record, form: dict[str, Any]) -> list[Any]:
    items = [_written(field, form[field.name]) for field in record.fields]
    while record.trimmed and items and items[-1] is None:
        items.pop()
    return items
