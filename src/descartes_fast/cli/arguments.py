"""Kinds of command line arguments; argparse names the function when it refuses a value."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

__all__ = ["count", "number", "pair", "seconds"]

if TYPE_CHECKING:
    from .parser import Parser

    Commands = argparse._SubParsersAction[Parser]


def seconds(text: str) -> float:
    """Read a number of seconds above zero."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def count(text: str) -> int:
    """Read a whole number above zero."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def number(text: str) -> int:
    """Read a whole number, zero or above."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def pair(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ValueError
    return name, value
