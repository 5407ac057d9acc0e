"""How long a server takes to start, and to have its agents back after it was killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Lineup, Starts
from .contestants import program
from .names import CIRCUS, INTERPRETER, OURS, SUPERVISOR

AGENTS = 200
QUICK_AGENTS = 10


def bench_startup_first_answer(
    measure: Callable[..., None], start: Callable[[Starts], Lineup]
) -> None:
    lineup = start(
        {
            OURS: lambda: program(OURS, "ours", "ours.startup"),
            CIRCUS: lambda: program(CIRCUS, "peer", "peers.daemon_startup", "circus"),
            SUPERVISOR: lambda: program(SUPERVISOR, "peer", "peers.daemon_startup", "supervisor"),
            INTERPRETER: lambda: program(INTERPRETER, "limit", "limits.interpreter"),
        }
    )

    def check(figures: dict[str, Any], _: dict[str, Any]) -> None:
        assert figures["done"] == 1

    measure(lineup, unit="ms", value="ms", lower_is_better=True, check=check, agents=0)
    lineup.close()


def bench_startup_recovery_200(
    measure: Callable[..., None], start: Callable[[Starts], Lineup], quick: bool
) -> None:
    agents = QUICK_AGENTS if quick else AGENTS
    lineup = start(
        {
            OURS: lambda: program(OURS, "ours", "ours.startup"),
            INTERPRETER: lambda: program(INTERPRETER, "limit", "limits.interpreter"),
        }
    )
    if not lineup.running[0].round(agents=1)["done"]:
        pytest.skip("this server does not take its agents back after a crash")

    def check(figures: dict[str, Any], _: dict[str, Any]) -> None:
        assert figures["done"] in (agents, 1)

    measure(
        lineup, unit="ms", value="ms", lower_is_better=True, check=check, rounds=5, agents=agents
    )
    lineup.close()
