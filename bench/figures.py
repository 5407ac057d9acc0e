"""What was measured, read back from pytest-benchmark's JSON: medians, quartiles, ratios."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .names import OURS

__all__ = ["Figure", "Spread", "load"]


@dataclass(frozen=True)
class Spread:
    """The middle of some values, and the quartiles around it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of some values."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)


@dataclass(frozen=True)
class Figure:
    """One benchmark's rounds, contestant by contestant."""

    name: str
    unit: str
    value: str
    lower_is_better: bool
    quick: bool
    kinds: dict[str, str]
    rounds: dict[str, list[dict[str, float]]]
    absent: dict[str, str]
    beside: dict[str, Any]
    agents: int

    def spread(self, contestant: str, value: str | None = None) -> Spread | None:
        """Return the spread of a contestant's values, ``None`` if it was not measured."""
        values = [each[value or self.value] for each in self.rounds.get(contestant, ())
                  if (value or self.value) in each]  # fmt: skip
        return Spread.of(values) if values else None

    def cpu(self, contestant: str) -> Spread | None:
        """Return the processor time for each thing done, in µs, or in ms a MB where bytes are."""
        factor = 1e9 if self.unit == "MB/s" else 1e6
        values = [
            each["cpu_secs"] / each["done"] * factor
            for each in self.rounds.get(contestant, ())
            if self.unit.endswith("/s") and each.get("cpu_secs") and each.get("done")
        ]
        return Spread.of(values) if values else None

    def ratio(self, contestant: str) -> Spread | None:
        """Return the spread of ours divided by a contestant's, round by round."""
        pairs = zip(self.rounds[OURS], self.rounds.get(contestant, ()), strict=False)
        ratios = [
            ours[self.value] / theirs[self.value]
            for ours, theirs in pairs
            if theirs.get(self.value)
        ]
        return Spread.of(ratios) if ratios else None


def load(reports: Iterable[Path]) -> dict[str, Figure]:
    """Return the figures of some runs, by name; a later run's take the place of an earlier's."""
    found = {}
    for report in reports:
        for entry in json.loads(report.read_text())["benchmarks"]:
            info = entry["extra_info"]
            if "contestants" not in info:
                continue
            found[info["figure"]] = Figure(
                name=info["figure"],
                unit=info["unit"],
                value=info["value"],
                lower_is_better=info["lower_is_better"],
                quick=info["quick"],
                kinds={each["name"]: each["kind"] for each in info["contestants"]},
                rounds={each["name"]: each["rounds"] for each in info["contestants"]},
                absent=info["absent"],
                beside=info.get("beside", {}),
                agents=info.get("agents", 0),
            )
    return found
