"""What happened in a chaos run, as it is written down by those who saw it.

Each client appends to a file of its own, a JSON object a line and one ``write(2)`` each, so that
what a killed client has begun is known. A call is written down before it is sent and again when
its outcome is there; ``id`` joins the two.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .agents import AgentPlan

__all__ = ["Call", "FinalAgent", "History", "Recorder", "read_calls", "text", "untext"]

OK, REFUSED, IN_DOUBT, ABANDONED = "ok", "refused", "in doubt", "abandoned"
"""Outcomes: done; not done; done or not; the client was killed and nobody could ask again."""


class Recorder:
    """Appends what a client does to its file."""

    def __init__(self, path: Path, name: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._name = name
        self._numbers = itertools.count(1)

    def begin(self, operation: str, **arguments: Any) -> str:
        """Write down a call that is about to be sent; return its id."""
        call_id = f"{self._name}-{next(self._numbers)}"
        self._write({"id": call_id, "operation": operation, "arguments": arguments})
        return call_id

    def end(self, call_id: str, outcome: str, **result: Any) -> None:
        """Write down a call's outcome."""
        self._write({"id": call_id, "outcome": outcome, "result": result})

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry | {"at": time.monotonic()}) + "\n"
        os.write(self._file, line.encode())


@dataclass(slots=True)
class Call:
    """One call of a client, and every outcome that was written down for it."""

    id: str
    operation: str
    arguments: dict[str, Any]
    began: float
    outcomes: list[tuple[str, dict[str, Any], float]] = field(default_factory=list)

    @property
    def agent(self) -> str | None:
        """The tag of the agent it is for."""
        return self.arguments.get("agent")

    @property
    def outcome(self) -> str | None:
        return self.outcomes[0][0] if self.outcomes else None

    @property
    def result(self) -> dict[str, Any]:
        return self.outcomes[0][1] if self.outcomes else {}

    @property
    def ended(self) -> float:
        return self.outcomes[0][2] if self.outcomes else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalAgent:
    """An agent as the server tells it when all is over."""

    tag: str
    status: str
    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes


@dataclass(kw_only=True)
class History:
    """All of a run: calls, births, the end of each agent, faults, and what was left."""

    calls: list[Call] = field(default_factory=list)
    births: list[str] = field(default_factory=list)
    """A tag for each process that an agent's program ran in."""
    agents: list[FinalAgent] = field(default_factory=list)
    faults: list[tuple[float, str]] = field(default_factory=list)
    """When, and what: ``server``, ``keeper``, ``both`` and so on."""
    leftovers: list[str] = field(default_factory=list)

    def plans(self) -> dict[str, AgentPlan]:
        """Return what was asked for, by tag."""
        return {
            call.arguments["plan"]["tag"]: AgentPlan.of(call.arguments["plan"])
            for call in self.calls
            if call.operation == "spawn"
        }

    @cached_property
    def spawned_at(self) -> dict[str, float]:
        """When each agent was asked for first, by tag; of a run that is over, as the next."""
        asked: dict[str, float] = {}
        for call in self.calls:
            if call.operation == "spawn":
                asked.setdefault(call.arguments["plan"]["tag"], call.began)
        return asked

    @cached_property
    def asked_to_end(self) -> set[str | None]:
        """The tags of the agents that somebody wanted to stop or kill."""
        return {call.agent for call in self.calls if call.operation in ("stop", "kill")}


def read_calls(path: Path) -> Iterator[Call]:
    """Yield the calls in a client's file, in the order in which they were begun."""
    calls: dict[str, Call] = {}
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if "operation" in entry:
            calls[entry["id"]] = Call(
                entry["id"], entry["operation"], entry["arguments"], entry["at"]
            )
        else:
            calls[entry["id"]].outcomes.append((entry["outcome"], entry["result"], entry["at"]))
    yield from calls.values()


def text(data: bytes) -> str:
    """Return bytes in the form in which they are written down."""
    return base64.b64encode(data).decode()


def untext(form: str) -> bytes:
    """Return the bytes that were written down."""
    return base64.b64decode(form)
