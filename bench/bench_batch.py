"""One command for 1,000 live agents: a signal to each, and the status of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Lineup, Starts
from .contestants import c_program, program
from .limits import compiled
from .names import CIRCUS, KILL, OS_KILL, OURS, SUPERVISOR

AGENTS = 1000
QUICK_AGENTS = 50
# Some tens of milliseconds: the first ones of a round pay for what the others' rounds pushed out of
# the caches, of every contestant.
BATCHES = 50


@pytest.fixture(scope="module")
def agents(quick: bool) -> int:
    return QUICK_AGENTS if quick else AGENTS


@pytest.fixture(scope="module")
def contestants(start: Callable[[Starts], Lineup], agents: int) -> Lineup:
    count = str(agents)
    return start(
        {
            OURS: lambda: program(OURS, "ours", "ours.batch", count),
            CIRCUS: lambda: program(CIRCUS, "peer", "peers.circus_signal", count),
            SUPERVISOR: lambda: program(SUPERVISOR, "peer", "peers.supervisor_signal", count),
            KILL: lambda: c_program(KILL, compiled("kill_loop"), count),
            OS_KILL: lambda: program(OS_KILL, "limit", "limits.kill_loop", count),
        }
    )


@pytest.fixture
def run(measure: Callable[..., None], contestants: Lineup, agents: int) -> Callable[..., None]:
    def batch(operation: str, batches: int, without: dict[str, str]) -> None:
        def check(figures: dict[str, Any], work: dict[str, Any]) -> None:
            assert figures["done"] == agents * work["batches"]

        measure(
            contestants,
            unit="agents/s",
            check=check,
            without=without,
            less={CIRCUS: {"batches": 5}, SUPERVISOR: {"batches": 1}},
            batches=batches,
            operation=operation,
        )

    return batch


def bench_batch_signal_1000(run: Callable[..., None]) -> None:
    run("signal", batches=BATCHES, without={})


def bench_batch_get_status_1000(run: Callable[..., None]) -> None:
    run(
        "get_status",
        batches=BATCHES,
        without={
            CIRCUS: "has no status of single processes",
            KILL: "",
            OS_KILL: "",
        },
    )
