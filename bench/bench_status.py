"""Status updates to typed subscriptions: what a subscriber takes, and what a server publishes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Lineup, Starts
from .contestants import Absent, c_program, program
from .limits import compiled
from .names import MSGSPEC, OURS, PUB_SUB, ZMQ
from .updates import our_frames, peer_frames, write_frames

COUNTS = {1: 100_000, 16: 6_000}
PUBLISHED = {1: 50_000, 16: 5_000}
QUICK_SHARE = 20


@pytest.fixture(scope="module")
def share(quick: bool) -> int:
    return QUICK_SHARE if quick else 1


@pytest.fixture
def run(
    measure: Callable[..., None], start: Callable[[Starts], Lineup]
) -> Callable[[Starts, int, int], None]:
    """Have contestants hand ``count`` updates to each of their ``subscribers``."""

    def in_turn(starts: Starts, count: int, subscribers: int) -> None:
        lineup = start(starts)
        measure(
            lineup,
            unit="updates/s",
            check=check_all_right(count * subscribers),
            count=count,
            subscribers=subscribers,
        )
        lineup.close()

    return in_turn


@pytest.fixture
def subscribe(
    run: Callable[[Starts, int, int], None], benchmark: Any, tmp_path: Path, share: int
) -> Callable[[int], None]:
    def measure_subscribers(subscribers: int) -> None:
        count = COUNTS[subscribers] // share
        ours, peers = tmp_path / "ours", tmp_path / "peers"
        write_frames(ours, our_frames(count))
        write_frames(peers, peer_frames(count))
        try:
            publish = compiled("zmq_pub_sub")
        except Absent as reason:
            pytest.skip(f"there is no source that is fast enough: {reason}")
        source = [str(publish), "source", str(peers), ""]
        starts: Starts = {
            OURS: lambda: program(OURS, "ours", "ours.status", str(publish), str(ours)),
            ZMQ: lambda: program(ZMQ, "peer", "peers.zmq_status", "msgpack", *source),
            MSGSPEC: lambda: program(MSGSPEC, "peer", "peers.zmq_status", "msgspec", *source),
            PUB_SUB: lambda: c_program(PUB_SUB, publish, "measure", str(ours)),
        }
        run(starts, count, subscribers)
        benchmark.extra_info["beside"] = {"source of all": "libzmq in C, updates encoded before"}

    return measure_subscribers


def check_all_right(count: int) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def check(figures: dict[str, Any], _: dict[str, Any]) -> None:
        assert figures["done"] == count

    return check


def bench_status_typed_1(subscribe: Callable[[int], None]) -> None:
    subscribe(1)


def bench_status_typed_16(subscribe: Callable[[int], None]) -> None:
    subscribe(16)


@pytest.fixture
def publish(run: Callable[[Starts, int, int], None], share: int) -> Callable[[int], None]:
    def measure_published(subscribers: int) -> None:
        count = PUBLISHED[subscribers] // share
        publisher = [sys.executable, "-m", "bench.peers.zmq_publisher", str(count)]
        starts: Starts = {
            OURS: lambda: program(OURS, "ours", "ours.status_published", str(count)),
            ZMQ: lambda: program(ZMQ, "peer", "peers.zmq_status", "msgpack", *publisher),
        }
        run(starts, count, subscribers)

    return measure_published


def bench_status_published_1(publish: Callable[[int], None]) -> None:
    publish(1)


def bench_status_published_16(publish: Callable[[int], None]) -> None:
    publish(16)
