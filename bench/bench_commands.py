"""get_status of one agent: one after the other, and many in flight, from one and eight clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Lineup, Starts
from .contestants import c_program, program
from .limits import compiled
from .names import DEALER_ROUTER, GRPC, OURS, REQ_REP, ZMQ

STARTS: Starts = {
    OURS: lambda: program(OURS, "ours", "ours.commands"),
    ZMQ: lambda: program(ZMQ, "peer", "peers.zmq_commands"),
    GRPC: lambda: program(GRPC, "peer", "peers.grpc_commands"),
    REQ_REP: lambda: program(REQ_REP, "limit", "limits.req_rep"),
    DEALER_ROUTER: lambda: c_program(DEALER_ROUTER, compiled("zmq_echo")),
}


@pytest.fixture(scope="module")
def contestants(start: Callable[[Starts], Lineup]) -> Lineup:
    return start(STARTS)


@pytest.fixture
def run(measure: Callable[..., None], contestants: Lineup, quick: bool) -> Callable[..., None]:
    def commands(count: int, in_flight: int, clients: int, **how: Any) -> None:
        count = count // 10 if quick else count
        count = max(count, in_flight * 2)

        def check(figures: dict[str, Any], work: dict[str, Any]) -> None:
            assert figures["done"] == work["count"]

        measure(
            contestants,
            unit="requests/s",
            check=check,
            without=left_out(in_flight),
            less={GRPC: {"count": max(count // 5, in_flight * 2)}},
            count=count,
            in_flight=in_flight,
            clients=clients,
            **how,
        )

    return commands


def left_out(in_flight: int) -> dict[str, str]:
    """Return who cannot have that many requests in flight, and why."""
    return {REQ_REP: "a REQ has one request in flight"} if in_flight > 1 else {}


def bench_commands_lock_step_1(run: Callable[..., None]) -> None:
    # Many rounds: who runs on which core when changes from one to the next.
    run(3_000, in_flight=1, clients=1, rounds=15)


def bench_commands_pipelined_16(run: Callable[..., None]) -> None:
    run(10_000, in_flight=16, clients=1)


def bench_commands_pipelined_256(run: Callable[..., None]) -> None:
    run(20_000, in_flight=256, clients=1)


def bench_commands_pipelined_4096(run: Callable[..., None]) -> None:
    run(40_000, in_flight=4096, clients=1)


def bench_commands_eight_clients_lock_step_8(run: Callable[..., None]) -> None:
    run(10_000, in_flight=8, clients=8)


def bench_commands_eight_clients_pipelined_16(run: Callable[..., None]) -> None:
    run(10_000, in_flight=16, clients=8)


def bench_commands_eight_clients_pipelined_256(run: Callable[..., None]) -> None:
    run(20_000, in_flight=256, clients=8)


def bench_commands_eight_clients_pipelined_4096(run: Callable[..., None]) -> None:
    run(40_000, in_flight=4096, clients=8)
