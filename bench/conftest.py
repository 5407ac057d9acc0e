"""Fixtures of the benchmarks: the scale, and rounds of all contestants in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest

from .contestants import Absent, Contestant

Starts = dict[str, Callable[[], Contestant]]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("descartes-fast benchmarks")
    group.addoption("--quick", action="store_true", help="small scales and few rounds")


@pytest.fixture(scope="session")
def quick(request: pytest.FixtureRequest) -> bool:
    """Whether this run only wants to see that everything works, roughly."""
    return bool(request.config.getoption("--quick"))


@dataclass
class Lineup:
    """The contestants of a layer that are here, ours first, and why the others are not."""

    running: list[Contestant]
    absent: dict[str, str]

    def close(self) -> None:
        for contestant in self.running:
            contestant.close()


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[[Starts], Lineup]]:
    """Start contestants, once for the module; those of the first call end with it."""
    with ExitStack() as stack:

        def started(starts: Starts) -> Lineup:
            lineup = Lineup([], {})
            stack.callback(lineup.close)
            for name, make in starts.items():
                try:
                    lineup.running.append(make())
                except Absent as reason:
                    lineup.absent[name] = str(reason)
            assert lineup.running, lineup.absent
            assert lineup.running[0].kind == "ours", lineup.absent
            return lineup

        yield started


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest, quick: bool) -> Callable[..., None]:
    """Have all contestants do rounds of the same work in turn, and note their figures.

    pytest-benchmark times our rounds; before each, outside of that time, the others do theirs.
    So whatever slows the machine down for a while slows all of them. The first round of
    each is not counted. ``check`` is given each round's figures and its work afterwards.
    ``without`` names who cannot do this work, and why; an empty reason is one that need not be
    told. ``less`` is the smaller work of who is slow, where only the rate counts.
    """

    def in_turn(
        lineup: Lineup,
        *,
        unit: str,
        rounds: int = 7,
        check: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
        value: str = "rate",
        lower_is_better: bool = False,
        without: Mapping[str, str] = MappingProxyType({}),
        less: Mapping[str, dict[str, Any]] = MappingProxyType({}),
        **work: Any,
    ) -> None:
        rounds = min(rounds, 2) if quick else rounds
        left_out = {name: why for name, why in without.items() if why}
        taking_part = [each for each in lineup.running if each.name not in without]
        ours, others = taking_part[0], taking_part[1:]
        found: dict[str, list[dict[str, Any]]] = {each.name: [] for each in taking_part}
        for contestant in taking_part:
            contestant.round(**work | less.get(contestant.name, {}))

        def run_others() -> None:
            for contestant in others:
                found[contestant.name].append(
                    contestant.round(**work | less.get(contestant.name, {}))
                )

        def run_ours() -> None:
            found[ours.name].append(ours.round(**work))

        benchmark.pedantic(run_ours, setup=run_others, rounds=rounds)
        benchmark.extra_info.update(
            figure=_figure(request.node.name),
            unit=unit,
            value=value,
            lower_is_better=lower_is_better,
            work=work,
            quick=quick,
            absent=lineup.absent | left_out,
            contestants=[
                {"name": each.name, "kind": each.kind, "rounds": found[each.name]}
                for each in taking_part
            ],
        )
        for each in taking_part:
            for figures in found[each.name]:
                if check is not None:
                    check(figures, work | less.get(each.name, {}))

    return in_turn


def _figure(name: str) -> str:
    return name.removeprefix("bench_").replace("[", "_").rstrip("]")
