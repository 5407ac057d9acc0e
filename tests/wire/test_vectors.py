"""Every line of the two files from ``rmp-serde``, in both directions."""

from __future__ import annotations

from typing import Any

import pytest

from descartes_fast._core import (
    deserialize_zmq_message,
    from_builtins,
    serialize_zmq_message,
    to_builtins,
)
from descartes_fast.errors import ProtocolError
from wire.cases import DECODE_CASES, VECTORS, trimmed


def named(lines: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(line, id=line["name"]) for line in lines]


@pytest.mark.parametrize("line", named(VECTORS))
def test_compact_form_decodes_to_the_message(line: dict[str, Any]) -> None:
    assert to_builtins(deserialize_zmq_message(bytes.fromhex(line["hex"]))) == line["message"]


@pytest.mark.parametrize("line", named([line for line in VECTORS if "hex_named" in line]))
def test_named_form_decodes_to_the_same_message(line: dict[str, Any]) -> None:
    compact = deserialize_zmq_message(bytes.fromhex(line["hex"]))
    assert deserialize_zmq_message(bytes.fromhex(line["hex_named"])) == compact


@pytest.mark.parametrize("line", named(VECTORS))
def test_message_encodes_to_the_compact_form(line: dict[str, Any]) -> None:
    compact = bytes.fromhex(line["hex"])
    assert serialize_zmq_message(from_builtins(line["message"])) == trimmed(compact)
    assert serialize_zmq_message(deserialize_zmq_message(compact)) == trimmed(compact)


@pytest.mark.parametrize("line", named(VECTORS))
def test_trimmed_form_decodes_to_the_same_message(line: dict[str, Any]) -> None:
    compact = bytes.fromhex(line["hex"])
    assert deserialize_zmq_message(trimmed(compact)) == deserialize_zmq_message(compact)


@pytest.mark.parametrize("line", named(VECTORS))
def test_json_form_has_the_type_first(line: dict[str, Any]) -> None:
    form = to_builtins(from_builtins(line["message"]))
    assert form == line["message"]
    assert next(iter(form)) == "type"


@pytest.mark.parametrize("line", named([line for line in DECODE_CASES if line["ok"]]))
def test_accepted_case_decodes_to_the_message(line: dict[str, Any]) -> None:
    message = deserialize_zmq_message(bytes.fromhex(line["hex"]))
    assert to_builtins(message) == line["message"]
    assert deserialize_zmq_message(serialize_zmq_message(message)) == message


@pytest.mark.parametrize("line", named([line for line in DECODE_CASES if not line["ok"]]))
def test_rejected_case_raises(line: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        deserialize_zmq_message(bytes.fromhex(line["hex"]))
