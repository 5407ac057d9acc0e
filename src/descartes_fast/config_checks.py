"""What the values of a configuration must be; each refusal names the setting."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, Literal

from .errors import UsageError

__all__ = [
    "check_endpoint",
    "check_numbers",
    "check_texts",
    "check_types",
    "expected",
    "is_server_name",
    "options_of",
]

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}

_MAX_SECS = 10 * 366 * 86_400.0  # more than anybody means, and no clock overflows
_MAX_COUNT = 2**63 - 1


def options_of(hint: Any) -> tuple[Any, ...]:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.get_args(hint)
    return (hint,)


def check_types(config: Any) -> None:
    """Refuse a value whose type is not its field's, naming the field."""
    hints = typing.get_type_hints(type(config))
    for entry in fields(config):
        hint, value = hints[entry.name], getattr(config, entry.name)
        if not any(_fits(value, option) for option in options_of(hint)):
            raise UsageError(f"{entry.name} must be {expected(hint)}, not {value!r}")


def expected(hint: Any) -> str:
    """Say in words what a field takes."""
    words = []
    for option in options_of(hint):
        origin = typing.get_origin(option)
        if origin is Literal:
            words += [f'"{choice}"' for choice in typing.get_args(option)]
        elif origin is tuple:
            words.append("an array")
        elif origin is not None:
            words.append("a table")
        elif option is not types.NoneType:
            words.append(_KINDS[option])
    return " or ".join(words)


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(
            any(_fits(entry, option) for option in options_of(arguments[0])) for entry in value
        )
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(key, arguments[0]) and _fits(entry, arguments[1]) for key, entry in value.items()
        )
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def check_numbers(
    config: Any,
    *,
    above_zero: Collection[str] = (),
    endless: Collection[str] = (),
    most: Mapping[str, float] | None = None,
) -> None:
    """Refuse numbers below zero, those that are none, and those that overflow somewhere.

    The settings ``above_zero`` may not be zero, those ``endless`` may be infinite; ``most`` are
    limits of single settings.
    """
    limits = most or {}
    for entry in fields(config):
        name, value = entry.name, getattr(config, entry.name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if name in above_zero:
            if not value > 0:
                raise UsageError(f"{name} must be above zero")
        elif not value >= 0:
            raise UsageError(f"{name} must not be negative")
        if name in endless and value == math.inf:
            continue
        limit = limits.get(name, _MAX_SECS if name.endswith("_secs") else _MAX_COUNT)
        if value > limit:
            raise UsageError(f"{name} must be at most {limit:g}, not {value:g}")


def check_texts(config: Any) -> None:
    """Refuse texts that are empty or hold a NUL, which no name and no path can have."""
    for entry in fields(config):
        value = getattr(config, entry.name)
        if isinstance(value, str) and (not value or "\0" in value):
            raise UsageError(f"{entry.name} must not be empty nor hold a NUL")


def check_endpoint(name: str, endpoint: str | None) -> None:
    """Refuse what is no endpoint of ZeroMQ. ``None`` is one that is not given."""
    if endpoint is None:
        return
    scheme, _, rest = endpoint.partition("://")
    is_one = bool(rest) and "\0" not in rest
    if scheme == "tcp":
        host, _, port = rest.rpartition(":")
        is_number = port.isascii() and port.isdigit() and int(port) < 65536
        is_one = is_one and bool(host) and (is_number or port == "*")
    elif scheme not in ("ipc", "inproc"):
        is_one = False
    if not is_one:
        raise UsageError(f"{name} must be tcp://HOST:PORT or ipc://PATH, not {endpoint!r}")


def is_server_name(text: str) -> bool:
    """Tell whether a server may go by this name."""
    return 0 < len(text) <= 255 and text.isprintable()
