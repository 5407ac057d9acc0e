"""What the journal keeps: an agent's row, a reply's row, and what is stored of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

import msgpack  # type: ignore[import-untyped]

from .._core import AgentConfig, to_builtins

__all__ = ["AgentRecord", "SavedReply", "stored_config"]

_KEPT_CHARACTERS = 4096  # of a text in a configuration: as much as is kept of a task


class AgentRecord(NamedTuple):
    """All that is known of an agent at one moment; times in nanoseconds since the epoch.

    ``task`` is as short as the server keeps it, ``config`` what :func:`stored_config` made.
    ``request_key`` names the spawn request: a repeat of it gets this agent.
    """

    id: UUID
    metadata: Mapping[str, str]
    name: str
    model_backend: str
    task: str
    pause_policy: str
    status: str
    seq: int
    started_at_ns: int
    output_limit_bytes: int
    output_policy: str
    config: bytes = b""
    request_key: str = ""
    stop_grace_secs: float | None = None
    pid: int | None = None
    start_ticks: int = 0
    ended_at_ns: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    message: str | None = None
    paused_at_ns: int | None = None
    pause_noticed: bool = False
    pause_begun: bool = False
    stop_by_ns: int | None = None
    stdout_start: int = 0
    stdout_end: int = 0
    stderr_start: int = 0
    stderr_end: int = 0
    user_secs: float = 0.0
    system_secs: float = 0.0
    max_rss_bytes: int = 0
    pause_mode: str | None = None
    signals_asked: str = ""
    stdout_cursor: int = 0
    stderr_cursor: int = 0


class SavedReply(NamedTuple):
    """A reply, or with ``reply`` ``None`` a request that was begun and has none yet.

    ``number`` rises with each that is saved.
    """

    number: int
    memory: str
    key: str
    saved_at_ns: int
    reply: bytes | None


def stored_config(config: AgentConfig, *, with_environment: bool) -> bytes:
    """Return a configuration as MessagePack, for the journal.

    Of the environment only the names, unless told otherwise; the task is left out (the agent's
    record has it), long texts are cut, and of ``agents`` there are only the names.
    """
    form: dict[str, Any] = to_builtins(config)
    form.pop("task", None)
    for name, value in form.items():
        if isinstance(value, str) and len(value) > _KEPT_CHARACTERS:
            form[name] = value[:_KEPT_CHARACTERS] + "..."
    if not with_environment:
        form["environment"] = dict.fromkeys(form.get("environment") or ())
    form["agents"] = list(form.get("agents") or ())
    packed: bytes = msgpack.packb(form)
    return packed
