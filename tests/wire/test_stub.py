"""The stub of the messages is the one that the table gives."""

from __future__ import annotations

from wire.message_stub import STUB, stub


def test_stub_is_up_to_date() -> None:
    assert STUB.read_text(encoding="utf-8") == stub(), "run: python tests/wire/message_stub.py"
