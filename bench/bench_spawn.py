"""Spawns: one after the other, many in flight, and commands while a storm of them goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .conftest import Lineup, Starts
from .contestants import program
from .names import ASYNCIO, CIRCUS, OURS, POSIX_SPAWN, REQ_REP, SUPERVISOR, UVLOOP, ZMQ
from .ours.server import OurServer

ONE = 200
MANY = 1000
STORM_ROUNDS = 25
QUICK_SHARE = 10
SLOW_SHARE = 5


@pytest.fixture
def run(
    measure: Callable[..., None], start: Callable[[Starts], Lineup], quick: bool
) -> Callable[..., None]:
    def spawns(count: int, in_flight: int) -> None:
        count = count // QUICK_SHARE if quick else count
        few = count // SLOW_SHARE
        lineup = start(
            {
                OURS: lambda: program(OURS, "ours", "ours.spawn"),
                ASYNCIO: lambda: program(ASYNCIO, "peer", "peers.subprocesses", "asyncio"),
                UVLOOP: lambda: program(UVLOOP, "peer", "peers.subprocesses", "uvloop"),
                CIRCUS: lambda: program(CIRCUS, "peer", "peers.circus_spawn"),
                SUPERVISOR: lambda: program(SUPERVISOR, "peer", "peers.supervisor_spawn", str(few)),
                POSIX_SPAWN: lambda: program(POSIX_SPAWN, "limit", "limits.posix_spawn"),
            }
        )

        def check(figures: dict[str, Any], work: dict[str, Any]) -> None:
            assert figures["done"] == work["count"]

        measure(
            lineup,
            unit="spawns/s",
            check=check,
            less={name: {"count": few} for name in (CIRCUS, SUPERVISOR)},
            count=count,
            in_flight=in_flight,
        )
        lineup.close()

    return spawns


def bench_spawn_one_1(run: Callable[..., None]) -> None:
    run(ONE, in_flight=1)


def bench_spawn_many_64(run: Callable[..., None]) -> None:
    run(MANY, in_flight=64)


@pytest.fixture
def run_in_storm(
    measure: Callable[..., None], start: Callable[[Starts], Lineup], benchmark: Any
) -> Callable[..., None]:
    def commands(**work: Any) -> None:
        with OurServer() as server, storm(server.endpoint) as told:
            lineup = start(
                {
                    OURS: lambda: program(OURS, "ours", "ours.commands", server.endpoint),
                    ZMQ: lambda: program(ZMQ, "peer", "peers.zmq_commands"),
                    REQ_REP: lambda: program(REQ_REP, "limit", "limits.req_rep"),
                }
            )
            # Many rounds: what a call meets in the storm changes from one second to the next.
            measure(
                lineup, unit="µs", value="p99", lower_is_better=True, rounds=STORM_ROUNDS, **work
            )
            lineup.close()
        assert told["spawns/s"] > 0
        assert told["log MB/s"] > 0
        assert not told["failures"]
        benchmark.extra_info["beside"] = told

    return commands


def bench_spawn_storm_commands(run_in_storm: Callable[..., None], quick: bool) -> None:
    """One call after the other: who takes more of the CPU for a call waits longer for it, too."""
    run_in_storm(count=200 if quick else 2000)


def bench_spawn_storm_paced(run_in_storm: Callable[..., None], quick: bool) -> None:
    """Some hundred calls a second, so that nobody uses up its share of the CPU by calling."""
    run_in_storm(count=100 if quick else 1000, pause_secs=0.001)


@contextmanager
def storm(endpoint: str) -> Iterator[dict[str, Any]]:
    """Let a storm of spawns and a flood of logs go on; what they came to is known at the end."""
    told: dict[str, Any] = {}
    command = [sys.executable, "-m", "bench.ours.load", endpoint]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield told
        finally:
            process.stdin.close()
            told |= json.loads(process.stdout.readline() or "{}")
