"""What the payloads of the control commands say, checked; each refusal names the key."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .._core import PauseMode
from ..config import MAX_GRACE_SECS
from ..errors import InvalidContext

__all__ = [
    "MORE_THAN_SIGNALS",
    "ActionPayload",
    "QueryPayload",
    "ReadPayload",
    "WritePayload",
    "grace_secs",
    "pause_mode",
    "signal_number",
]

Encoding = Literal["bytes", "base64", "text"]

MAX_ARRAY_BYTES = 64 * 1024  # one element a byte: bounded more tightly than a string
MAX_READ_BYTES = 1024 * 1024
DEFAULT_READ_BYTES = 64 * 1024
MAX_QUERY_LINES = 10_000
DEFAULT_QUERY_LINES = 100


@dataclass(frozen=True, slots=True)
class ReadPayload:
    """Of ``read_stdout`` and ``read_stderr``; without ``offset`` the shared cursor is used."""

    offset: int | None
    max_bytes: int
    wait_secs: float
    encoding: Encoding

    @classmethod
    def of(cls, payload: Any) -> ReadPayload:
        if payload is None:
            return _PLAIN_READ
        entries = _entries(payload)
        encoding = _encoding(entries)
        most = MAX_ARRAY_BYTES if encoding == "bytes" else MAX_READ_BYTES
        wanted = _whole(entries, "max_bytes", 1) or DEFAULT_READ_BYTES
        return cls(
            offset=_whole(entries, "offset", 0),
            max_bytes=min(wanted, most),
            wait_secs=_seconds(entries, "wait_secs") or 0.0,
            encoding=encoding,
        )


_PLAIN_READ = ReadPayload(None, DEFAULT_READ_BYTES, 0.0, "base64")


@dataclass(frozen=True, slots=True)
class WritePayload:
    """Of ``write_stdin``: text is sent as UTF-8, other bytes come as an array."""

    data: bytes
    close: bool

    @classmethod
    def of(cls, payload: Any) -> WritePayload:
        entries = _entries(payload)
        close = _flag(entries, "close", False)
        data = entries.get("data")
        if data is None:
            if not close:
                raise InvalidContext("write_stdin needs data or close in its payload")
            return cls(b"", True)
        if isinstance(data, str):
            return cls(data.encode("utf-8", "surrogatepass"), close)
        if isinstance(data, list) and all(type(entry) is int for entry in data):
            try:
                return cls(bytes(data), close)
            except ValueError:
                pass
        raise InvalidContext("data must be a string or an array of bytes (0 to 255)")


@dataclass(frozen=True, slots=True)
class ActionPayload:
    """Of ``custom_action``."""

    action: str
    params: Any
    timeout_secs: float | None

    @classmethod
    def of(cls, payload: Any) -> ActionPayload:
        entries = _entries(payload)
        action = entries.get("action")
        if not isinstance(action, str) or not action:
            raise InvalidContext("custom_action needs the name of an action in its payload")
        return cls(action, entries.get("params"), _seconds(entries, "timeout_secs"))


@dataclass(frozen=True, slots=True)
class QueryPayload:
    """Of ``query_output``: the last ``max_lines`` lines of the streams asked for."""

    max_lines: int
    stdout: bool
    stderr: bool

    @classmethod
    def of(cls, payload: Any) -> QueryPayload:
        entries = _entries(payload)
        lines = _whole(entries, "max_lines", 0)
        return cls(
            max_lines=min(DEFAULT_QUERY_LINES if lines is None else lines, MAX_QUERY_LINES),
            stdout=_flag(entries, "stdout", True),
            stderr=_flag(entries, "stderr", True),
        )


def pause_mode(payload: Any) -> PauseMode | None:
    """Return the mode a pause asks for; ``None`` leaves it to the backend."""
    entries = _entries(payload)
    mode = entries.get("mode")
    if mode is not None:
        try:
            return PauseMode(mode)
        except ValueError:
            raise InvalidContext("mode must be forced or cooperative") from None
    if entries.get("force") is None:
        return None
    return PauseMode.FORCED if _flag(entries, "force", True) else PauseMode.COOPERATIVE


def grace_secs(payload: Any, default: float) -> float:
    """Return how long a stop waits before it kills."""
    asked = _seconds(_entries(payload), "grace_secs")
    return default if asked is None else min(asked, MAX_GRACE_SECS)


def signal_number(payload: Any) -> int:
    """Return the signal of a ``signal`` command: ``"SIGINT"``, ``"int"`` or ``2``."""
    asked = _entries(payload).get("signal")
    if isinstance(asked, str):
        name = asked[:80].upper()
        name = name if name.startswith("SIG") else f"SIG{name}"
        found = signal.Signals.__members__.get(name)
        if found is not None:
            return int(found)
        raise InvalidContext(f"unknown signal {asked[:80]!r}")
    if type(asked) is int and asked in _SIGNAL_NUMBERS:
        return asked
    if type(asked) is int:
        raise InvalidContext(f"unknown signal {asked}")
    raise InvalidContext("signal needs the name or number of a signal in its payload")


MORE_THAN_SIGNALS = frozenset({signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL})
"""Sending them is a pause, a resume and a kill, with all that belongs to those."""

_SIGNAL_NUMBERS = frozenset(int(number) for number in signal.valid_signals())


def _entries(payload: Any) -> Mapping[str, Any]:
    if payload is None:
        return {}
    if not isinstance(payload, dict):
        raise InvalidContext("the payload must be a map")
    return payload


def _encoding(entries: Mapping[str, Any]) -> Encoding:
    match entries.get("encoding"):
        case None | "base64":
            return "base64"
        case "bytes":
            return "bytes"
        case "text":
            return "text"
    raise InvalidContext("encoding must be bytes, base64 or text")


def _whole(entries: Mapping[str, Any], key: str, least: int) -> int | None:
    value = entries.get(key)
    if value is None:
        return None
    if type(value) is not int or value < least:
        raise InvalidContext(f"{key} must be a whole number of at least {least}")
    return value


def _seconds(entries: Mapping[str, Any], key: str) -> float | None:
    value = entries.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not (value >= 0 and math.isfinite(value)):
        raise InvalidContext(f"{key} must be a number of seconds, not negative")
    return float(value)


def _flag(entries: Mapping[str, Any], key: str, default: bool) -> bool:
    value = entries.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidContext(f"{key} must be true or false")
    return value
