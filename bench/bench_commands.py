"""get_status of one agent: one after the other, and many in flight, from one and eight clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Lineup, Starts
from .contestants import c_program, program
from .limits import compiled

OURS = "descartes-fast"
ECHO = "pyzmq REQ/REP, blocking"
ROUTER = "libzmq DEALER/ROUTER in C"

STARTS: Starts = {
    OURS: lambda: program(OURS, "ours", "ours.commands"),
    "zmq.asyncio + msgpack": lambda: program(
        "zmq.asyncio + msgpack", "peer", "peers.zmq_commands"
    ),
    "grpc.aio": lambda: program("grpc.aio", "peer", "peers.grpc_commands"),
    ECHO: lambda: program(ECHO, "limit", "limits.req_rep"),
    ROUTER: lambda: c_program(ROUTER, compiled("zmq_echo")),
}


@pytest.fixture(scope="module")
def contestants(start: Callable[[Starts], Lineup]) -> Lineup:
    return start(STARTS)


@pytest.fixture
def run(measure: Callable[..., None], contestants: Lineup, quick: bool) -> Callable[..., None]:
    def commands(count: int, in_flight: int, clients: int) -> None:
        count = count // 10 if quick else count
        count = max(count, in_flight * 2)

        def check(figures: dict[str, Any]) -> None:
            assert figures["done"] == count

        measure(
            contestants,
            unit="requests/s",
            check=check,
            # A REQ has one request in flight.
            only=lambda each: in_flight == 1 or each.name != ECHO,
            count=count,
            in_flight=in_flight,
            clients=clients,
        )

    return commands


def bench_commands_lock_step_1(run: Callable[..., None]) -> None:
    run(3_000, in_flight=1, clients=1)


def bench_commands_pipelined_16(run: Callable[..., None]) -> None:
    run(10_000, in_flight=16, clients=1)


def bench_commands_pipelined_256(run: Callable[..., None]) -> None:
    run(20_000, in_flight=256, clients=1)


def bench_commands_pipelined_4096(run: Callable[..., None]) -> None:
    run(40_000, in_flight=4096, clients=1)


def bench_commands_eight_clients_lock_step_8(run: Callable[..., None]) -> None:
    run(10_000, in_flight=8, clients=8)


def bench_commands_eight_clients_pipelined_256(run: Callable[..., None]) -> None:
    run(20_000, in_flight=256, clients=8)
