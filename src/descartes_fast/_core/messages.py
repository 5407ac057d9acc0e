"""The classes of the messages by name; ``messages.pyi`` describes them to type checkers."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from .classes import TYPES
from .schema import ENVELOPES, RECORDS

globals().update(TYPES)

ZmqMessage = reduce(or_, [TYPES[record.name] for record in ENVELOPES])
Value = bool | int | float | str | list[Any] | tuple[Any, ...] | dict[str, Any] | None

__all__ = [*(record.name for record in RECORDS), "Value", "ZmqMessage"]
