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
    """One promise about one figure. Where ``below``, smaller is better.

    ``bounded_by`` says what keeps it from its aim, as far as that was measured, and what was tried.
    """

    words: str
    figure: str
    at_least: Bound
    aim: Bound | None = None
    below: bool = False
    bounded_by: str = ""


TARGETS = (
    Target(
        "lock-step get_status",
        "commands_lock_step_1",
        Bound(0.7, REQ_REP),
        Bound(0.9, REQ_REP),
        bounded_by="of some 126 µs a round trip 98 are the bare echo's, six wake-ups of threads; "
        "9 the server adds, and 19 the client, of which 15 are between an answer and the next "
        "request: a turn of the event loop, the codec, five coroutines. Its modules compiled by "
        "Cython as they are were 3 % slower. What need not be done between those two is done "
        "after the request has left.",
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
    Target(
        "log bytes, ASCII",
        "logs_ascii_1",
        Bound(200),
        Bound(1, CAT),
        bounded_by="beside what `cat` does the server reads the bytes from the file, cuts them "
        "into messages and sends them by TCP, and the client decodes them: three times the CPU.",
    ),
    Target("log bytes, UTF-8", "logs_utf8_1", Bound(80), Bound(1, CAT)),
    Target(
        "spawns",
        "spawn_many_64",
        Bound(0.75, POSIX_SPAWN),
        Bound(1, POSIX_SPAWN),
        bounded_by="of some 1,250 µs of CPU a spawn, on two cores that are 93 % busy, 760 are the "
        "agent's own process, 230 the server's, 190 the keeper's, 25 the client's. All of the "
        "keeper compiled by Cython: no gain. Without the removal of outputs: 1 % more.",
    ),
    Target("spawns", "spawn_many_64", Bound(3, UVLOOP)),
    Target(
        "p99 of commands in a spawn storm and a log flood",
        "spawn_storm_commands",
        Bound(3, REQ_REP),
        Bound(2, REQ_REP),
        below=True,
        bounded_by="rounds differ tenfold, as the echo's do: 64 spawns are under way on two cores, "
        "and each round trip wakes six threads. Tried: shorter slices of the scheduler for the "
        "server's threads (0.35 in one run, 7.8 in the next), and a thread of libzmq's own for "
        "commands, which was kept.",
    ),
    Target("memory for a live agent", "scale_memory_5000", Bound(20), Bound(10), below=True),
    Target("5,000 idle agents", "scale_idle_5000", Bound(1), Bound(0.2), below=True),
    Target("list of 5,000 agents", "scale_list_5000", Bound(20), Bound(8), below=True),
)
