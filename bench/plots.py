"""The plots of a report: rates, percentiles of latency, cost against the number of agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .figures import Figure
from .names import OURS
from .svg import Point, line_chart

__all__ = ["plots"]

_IN_FLIGHT = {
    "commands_lock_step_1": 1,
    "commands_pipelined_16": 16,
    "commands_pipelined_256": 256,
    "commands_pipelined_4096": 4096,
}
_PERCENTILES = {"p50": "50%", "p90": "90%", "p99": "99%", "p999": "99.9%"}
_COSTS: dict[str, tuple[str, Callable[[float, int], float]]] = {
    "list": ("µs in a list", lambda value, agents: value * 1e3 / agents),
    "status": ("µs of get_status", lambda value, agents: 1e6 / value),
    "memory": ("KB of memory", lambda value, agents: value),
    "spawn": ("ms a spawn, 64 at once", lambda value, agents: 1e3 / value),
    "idle": ("µs of CPU a second, idle", lambda value, agents: value * 1e4 / agents),
}


def plots(figures: Mapping[str, Figure]) -> dict[str, str]:
    """Return the plots that these figures are enough for, by file name."""
    found = {
        "rates.svg": _rates(figures),
        "latency.svg": _latency(figures, "commands_lock_step_1", "A lone request"),
        "latency-storm.svg": _latency(
            figures, "spawn_storm_commands", "A lone request during a spawn storm and a log flood"
        ),
        "cost.svg": _cost(figures),
    }
    return {name: text for name, text in found.items() if text}


def _rates(figures: Mapping[str, Figure]) -> str:
    series: dict[str, list[Point]] = {OURS: []}
    for name, in_flight in _IN_FLIGHT.items():
        for contestant in figures[name].rounds if name in figures else ():
            spread = figures[name].spread(contestant)
            if spread is not None:
                series.setdefault(contestant, []).append((in_flight, spread.median))
    return line_chart("get_status, one client", "requests in flight", "requests/s", series)


def _latency(figures: Mapping[str, Figure], name: str, title: str) -> str:
    series: dict[str, list[Point]] = {OURS: []}
    for contestant in figures[name].rounds if name in figures else ():
        for position, percentile in enumerate(_PERCENTILES):
            spread = figures[name].spread(contestant, percentile)
            if spread is not None:
                series.setdefault(contestant, []).append((position, spread.median))
    names = list(_PERCENTILES.values())
    return line_chart(title, "share of requests that are faster", "µs", series, x_names=names)


def _cost(figures: Mapping[str, Figure]) -> str:
    series: dict[str, list[Point]] = {}
    for kind, (words, cost) in _COSTS.items():
        for name, figure in sorted(figures.items(), key=lambda pair: pair[1].agents):
            spread = figure.spread(OURS)
            if name.startswith(f"scale_{kind}_") and spread is not None and figure.agents:
                point = (float(figure.agents), cost(spread.median, figure.agents))
                series.setdefault(words, []).append(point)
    return line_chart("What an agent costs", "live agents", "", series)
