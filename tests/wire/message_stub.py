"""Writes ``messages.pyi`` from the table of messages: ``python tests/wire/message_stub.py``."""

from __future__ import annotations

from pathlib import Path

import descartes_fast._core as core
from descartes_fast._core.schema import ENVELOPES, RECORDS, Field, Record

STUB = Path(core.__file__).with_name("messages.pyi")

HEAD = '''\
"""The classes of the messages. Written by ``tests/wire/message_stub.py`` from the table."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, Self, TypeAlias, final
from uuid import UUID

from typing_extensions import Buffer

'''

VALUE = """
Value: TypeAlias = bool | int | float | str | list[Any] | tuple[Any, ...] | dict[str, Any] | None

"""

READ = {
    "text": "str",
    "boolean": "bool",
    "u64": "int",
    "i64": "int",
    "uuid": "UUID",
    "time": "datetime",
    "octets": "bytes",
    "value": "Any",
    "text_map": "Mapping[str, str]",
    "value_map": "Mapping[str, Any]",
    "text_list": "tuple[str, ...]",
    "uuid_list": "tuple[UUID, ...]",
}

GIVEN = READ | {
    "time": "datetime | int",
    "octets": "Buffer",
    "value": "Value",
    "value_map": "Mapping[str, Value]",
    "text_list": "Sequence[str]",
    "uuid_list": "Sequence[UUID]",
}


def of_name(field: Field) -> str:
    """Return the name of the enum or the record that a field holds."""
    return field.of if isinstance(field.of, str) else field.of.__name__ if field.of else ""


def read_type(field: Field) -> str:
    """Return the type that reading a field gives."""
    name = of_name(field)
    known = {"word": name, "nested": name, "nested_list": f"tuple[{name}, ...]"} | READ
    optional = " | None" if field.optional and field.kind != "value" else ""
    return known[field.kind] + optional


def given_type(field: Field) -> str:
    """Return the type that a field may be given."""
    name = of_name(field)
    known = {"word": name, "nested": name, "nested_list": f"Sequence[{name}]"} | GIVEN
    may_be_none = field.optional or field.kind == "time"
    return known[field.kind] + (" | None" if may_be_none and field.kind != "value" else "")


def parameters(record: Record, *, replacing: bool) -> list[str]:
    """Return the keyword parameters of the constructor, or of ``__replace__``."""
    lines = []
    for field in record.fields:
        needed = field.required and field.kind != "time" and not replacing
        lines.append(f"        {field.name}: {given_type(field)}{'' if needed else ' = ...'},")
    return lines


def class_of(record: Record) -> str:
    """Return the stub of one class."""
    names = [f'"{field.name}"' for field in record.fields]
    # One name to a line where they do not fit on one: as the formatter has it.
    single = f"    __match_args__: Final = ({', '.join(names)}{',' if len(names) == 1 else ''})"
    spread = ["    __match_args__: Final = (", *(f"        {name}," for name in names), "    )"]
    lines = [
        "@final",
        f"class {record.name}:",
        f'    """{record.doc}"""',
        "",
        *([single] if len(single) <= 100 else spread),
        "    __hash__: ClassVar[None]  # type: ignore[assignment]",
        "    def __init__(",
        "        self,",
        "        *,",
        *parameters(record, replacing=False),
        "    ) -> None: ...",
        "    def __replace__(",
        "        self,",
        "        *,",
        *parameters(record, replacing=True),
        "    ) -> Self: ...",
    ]
    for field in record.fields:
        lines += ["    @property", f"    def {field.name}(self) -> {read_type(field)}: ..."]
        if field.kind == "time":
            kind = "int | None" if field.optional else "int"
            lines += ["    @property", f"    def {field.name}_ns(self) -> {kind}: ..."]
    return "\n".join(lines) + "\n"


def stub() -> str:
    """Return the whole stub."""
    enums = sorted(
        {of_name(field) for record in RECORDS for field in record.fields if field.kind == "word"}
    )
    imports = "from .enums import (\n" + "".join(f"    {name},\n" for name in enums) + ")\n"
    union = (
        "ZmqMessage: TypeAlias = (\n    "
        + "\n    | ".join(record.name for record in ENVELOPES)
        + "\n)\n"
    )
    body = "\n".join(class_of(record) for record in RECORDS)
    return HEAD + imports + VALUE + body + "\n" + union


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
