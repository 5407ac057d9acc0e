"""What the product promises: each row of the table of targets, as data."""

from __future__ import annotations

from dataclasses import dataclass

from .names import CAT, KILL, POSIX_SPAWN, PUB_SUB, REQ_REP, UVLOOP, ZMQ

__all__ = ["TARGETS", "Bound", "Target"]


@dataclass(frozen=True)
class Bound:
    """A value that ours must reach: a ratio to a contestant, or absolute without one."""

    value: float
    against: str | None = None


@dataclass(frozen=True)
class Target:
    """One promise about one figure. Where ``below``, smaller is better."""

    words: str
    figure: str
    at_least: Bound
    aim: Bound | None = None
    below: bool = False


TARGETS = (
    Target(
        "lock-step get_status", "commands_lock_step_1", Bound(0.7, REQ_REP), Bound(0.9, REQ_REP)
    ),
    Target(
        "get_status, 256 in flight",
        "commands_pipelined_256",
        Bound(4, ZMQ),
        Bound(150_000),
    ),
    Target("signal to 1,000 agents", "batch_signal_1000", Bound(0.3, KILL), Bound(0.6, KILL)),
    Target("get_status of 1,000 agents", "batch_get_status_1000", Bound(500_000), Bound(1_000_000)),
    Target("typed status updates", "status_typed_1", Bound(12, ZMQ), Bound(20, ZMQ)),
    Target("typed status updates", "status_typed_1", Bound(0.2, PUB_SUB), Bound(0.35, PUB_SUB)),
    Target("log bytes, ASCII", "logs_ascii_1", Bound(200), Bound(1, CAT)),
    Target("log bytes, UTF-8", "logs_utf8_1", Bound(80), Bound(1, CAT)),
    Target("spawns", "spawn_many_64", Bound(0.75, POSIX_SPAWN), Bound(1, POSIX_SPAWN)),
    Target("spawns", "spawn_many_64", Bound(3, UVLOOP)),
    Target(
        "p99 of commands in a spawn storm and a log flood",
        "spawn_storm_commands",
        Bound(3, REQ_REP),
        Bound(2, REQ_REP),
        below=True,
    ),
    Target("memory for a live agent", "scale_memory_5000", Bound(20), Bound(10), below=True),
    Target("5,000 idle agents", "scale_idle_5000", Bound(1), Bound(0.2), below=True),
    Target("list of 5,000 agents", "scale_list_5000", Bound(20), Bound(8), below=True),
)
