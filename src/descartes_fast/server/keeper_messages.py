"""What the server and its keeper tell each other, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from .._core.ids import id_of
from ..config import OutputPolicy, StdinPolicy

__all__ = [
    "Adoption",
    "Ended",
    "KeeperEvents",
    "KnownAgent",
    "Launch",
    "OutputGrew",
    "Started",
    "ended_of",
    "known_agent_of",
    "output_grew_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A process to be started.

    ``argv`` and ``environment`` are passed as they are. ``stdin_data`` is written first
    and, with ``stdin`` "close-after-task", the only thing. Each output stream keeps
    ``output_limit_bytes`` in its file. ``limits`` are resource limits by their names in
    ``getrlimit(2)`` without ``RLIMIT_``, in lower case. ``spare_directory`` is an empty one that
    may become the output's.
    """

    agent_id: UUID
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str | None = None
    stdin: StdinPolicy = "null"
    stdin_data: bytes = b""
    stdout_path: str
    stderr_path: str
    output_limit_bytes: int
    output_policy: OutputPolicy = "trim"
    limits: Mapping[str, int] = field(default_factory=dict)
    spare_directory: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process that runs. ``start_ticks`` tells it from a later one of the same pid."""

    pid: int
    started_at_ns: int
    start_ticks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """A process that an earlier keeper started, for a new one to take over."""

    agent_id: UUID
    pid: int
    start_ticks: int
    started_at_ns: int
    stdout_path: str
    stderr_path: str
    output_limit_bytes: int
    output_policy: OutputPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputGrew:
    """How long an agent's streams are, and the first offset that each still has."""

    agent_id: UUID
    stdout_bytes: int
    stderr_bytes: int
    stdout_start: int
    stderr_start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end of an agent: how, and the final lengths of its streams.

    Either ``exit_code`` or ``signal`` is given, or neither: ``unknown`` says that nobody saw
    the end, because the keeper that would have was gone. The times and the memory are those of
    the first process and of what it has waited for, and zero of one that was adopted; on Linux the
    memory counts from the exec on, and what the keeper itself uses (16 MB) is the least it can say.
    """

    agent_id: UUID
    exit_code: int | None
    signal: int | None
    stdout_bytes: int
    stderr_bytes: int
    stdout_start: int
    stderr_start: int
    ended_at_ns: int
    user_secs: float
    system_secs: float
    max_rss_bytes: int
    unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAgent:
    """An agent as a keeper knows it; ``ended`` is its end, if that has come.

    ``stdin`` is "open", "closed" or "null" (it has none), or "closing": it ends after what the
    agent has still to read. ``stopping`` says that the keeper is ending it.
    """

    agent_id: UUID
    started: Started
    stdin: str
    stopping: bool
    output: OutputGrew
    ended: Ended | None


class KeeperEvents(Protocol):
    """What the keeper says unasked; called on the event loop, in order."""

    def output_grew(self, event: OutputGrew) -> None:
        """There is more output, at most every 2 ms for each agent."""

    def agent_ended(self, event: Ended) -> None:
        """An agent ended: once, and nothing of it follows."""

    def keeper_lost(self, reason: str) -> None:
        """The keeper is gone though nobody asked it to go.

        Calls that were under way have failed; later ones wait for :meth:`KeeperLink.replace`.
        """


def output_grew_of(header: Mapping[str, Any], *, agent_id: UUID | None = None) -> OutputGrew:
    """Return the lengths that a frame's header tells."""
    return OutputGrew(
        agent_id=id_of(header["agent"]) if agent_id is None else agent_id,
        stdout_start=header["stdout"][0],
        stdout_bytes=header["stdout"][1],
        stderr_start=header["stderr"][0],
        stderr_bytes=header["stderr"][1],
    )


def ended_of(header: Mapping[str, Any]) -> Ended:
    """Return the end that a frame's header tells."""
    return Ended(
        agent_id=id_of(header["agent"]),
        exit_code=header["exit_code"],
        signal=header["signal"],
        stdout_start=header["stdout"][0],
        stdout_bytes=header["stdout"][1],
        stderr_start=header["stderr"][0],
        stderr_bytes=header["stderr"][1],
        ended_at_ns=header["ended_at_ns"],
        user_secs=header["user_secs"] or 0.0,
        system_secs=header["system_secs"] or 0.0,
        max_rss_bytes=header["max_rss_bytes"] or 0,
        unknown=bool(header.get("unknown")),
    )


def known_agent_of(entry: Mapping[str, Any]) -> KnownAgent:
    """Return the agent that an entry of the keeper's list describes."""
    return KnownAgent(
        agent_id=id_of(entry["agent"]),
        started=Started(
            pid=entry["pid"],
            started_at_ns=entry["started_at_ns"],
            start_ticks=entry["start_ticks"],
        ),
        stdin=entry["stdin"],
        stopping=bool(entry.get("stopping")),
        output=output_grew_of(entry),
        ended=None if entry.get("ended") is None else ended_of(entry["ended"]),
    )
