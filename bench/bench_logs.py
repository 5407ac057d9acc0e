"""Log bytes from one and from 100 agents to one subscriber, none lost: ASCII and UTF-8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Lineup, Starts
from .contestants import program
from .names import CAT, OURS, ZMQ

MIB = 1024 * 1024
TOTAL_BYTES = 128 * MIB
QUICK_BYTES = 8 * MIB
AGENTS = 100

ASCII_LINE = (
    b"2025-11-13T02:13:20Z INFO worker: step finished, 17 files read, 3 written, all is well\n"
)
# Half of its bytes are above 0x7f, and take two bytes each in the wire format.
UTF8_LINE = "файл прочитан: all is well here now\n".encode()


@pytest.fixture(scope="module")
def contestants(start: Callable[[Starts], Lineup]) -> Lineup:
    return start(
        {
            OURS: lambda: program(OURS, "ours", "ours.logs"),
            ZMQ: lambda: program(ZMQ, "peer", "peers.zmq_logs"),
            CAT: lambda: program(CAT, "limit", "limits.cat"),
        }
    )


@pytest.fixture
def run(
    measure: Callable[..., None], contestants: Lineup, tmp_path: Path, quick: bool
) -> Callable[..., None]:
    def logs(line: bytes, agents: int) -> None:
        size = (QUICK_BYTES if quick else TOTAL_BYTES) // agents
        path = tmp_path / "text"
        path.write_bytes((line * (size // len(line) + 1))[:size])

        def check(figures: dict[str, Any], _: dict[str, Any]) -> None:
            assert figures["done"] == size * agents

        measure(contestants, unit="MB/s", check=check, path=str(path), agents=agents)

    return logs


def bench_logs_ascii_1(run: Callable[..., None]) -> None:
    run(ASCII_LINE, agents=1)


def bench_logs_utf8_1(run: Callable[..., None]) -> None:
    run(UTF8_LINE, agents=1)


def bench_logs_ascii_100(run: Callable[..., None]) -> None:
    run(ASCII_LINE, agents=AGENTS)


def bench_logs_utf8_100(run: Callable[..., None]) -> None:
    run(UTF8_LINE, agents=AGENTS)
