"""The cost of an agent with 100, 1,000 and 5,000 alive: list, status, memory, idle, one more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Lineup, Starts
from .contestants import program
from .names import CIRCUS, OURS, REQ_REP, SUPERVISOR, ZMQ

SIZES = (100, 1000, 5000)
QUICK_SIZES = {100: 20, 1000: 50, 5000: 100}
DAEMONS_UP_TO = 1000
STATUSES = 5000
SPAWNS = 500
ROUND_TRIPS = 20  # lists in a round, and for the limit as many of as many bytes


@pytest.fixture(scope="module", params=SIZES)
def asked(request: pytest.FixtureRequest, quick: bool) -> int:
    return QUICK_SIZES[request.param] if quick else int(request.param)


@pytest.fixture(scope="module")
def contestants(start: Callable[[Starts], Lineup], asked: int) -> Iterator[Lineup]:
    count = str(asked)
    starts: Starts = {
        OURS: lambda: program(OURS, "ours", "ours.scale", count),
        ZMQ: lambda: program(ZMQ, "peer", "peers.zmq_list", count),
        REQ_REP: lambda: program(REQ_REP, "limit", "limits.req_rep"),
    }
    if asked <= DAEMONS_UP_TO:
        for name in (CIRCUS, SUPERVISOR):
            starts[name] = lambda name=name: program(  # type: ignore[misc]
                name, "peer", "peers.daemon_scale", name, count
            )
    lineup = start(starts)
    yield lineup
    lineup.close()


@pytest.fixture
def run(
    measure: Callable[..., None], contestants: Lineup, asked: int, benchmark: Any
) -> Callable[..., None]:
    facts = contestants.running[0].round(operation="memory")
    live = facts["live"]

    def scale(operation: str, *, unit: str, value: str, only: set[str], **work: Any) -> None:
        def check(figures: dict[str, Any], _: dict[str, Any]) -> None:
            # All that were asked for, or as many as the server says this machine has room for.
            assert figures["done"] in (asked, live, work.get("count", ROUND_TRIPS))

        measure(
            contestants,
            unit=unit,
            value=value,
            lower_is_better=value != "rate",
            check=check,
            without={each.name: "" for each in contestants.running if each.name not in only},
            operation=operation,
            answer=facts["bytes"],
            **{"count": ROUND_TRIPS, **work},
        )
        benchmark.extra_info["agents"] = live
        if live < asked:
            benchmark.extra_info["beside"] = {"asked for": asked, "live": live} | {
                "words": facts["words"]
            }

    assert live == asked or facts["words"]
    return scale


def bench_scale_list(run: Callable[..., None]) -> None:
    run("list", unit="ms", value="ms", only={OURS, ZMQ, REQ_REP})


def bench_scale_status(run: Callable[..., None], quick: bool) -> None:
    count = STATUSES // 10 if quick else STATUSES
    run("status", unit="requests/s", value="rate", only={OURS}, count=count)


def bench_scale_memory(run: Callable[..., None]) -> None:
    run("memory", unit="KB/agent", value="KB", only={OURS, CIRCUS, SUPERVISOR}, rounds=1)


def bench_scale_idle(run: Callable[..., None], quick: bool) -> None:
    run(
        "idle",
        unit="% of a core",
        value="percent",
        only={OURS, CIRCUS, SUPERVISOR},
        rounds=3,
        secs=1 if quick else 10,
    )


def bench_scale_spawn(run: Callable[..., None], quick: bool) -> None:
    """Agents that end at once, beside those that live."""
    run(
        "spawn", unit="spawns/s", value="rate", only={OURS}, count=SPAWNS // 10 if quick else SPAWNS
    )
