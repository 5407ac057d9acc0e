"""``python -m bench compare``: two builds' codec results, as ratios to a peer in the same run.

A machine's speed changes from run to run, and cancels out of the ratio to a library that
ran beside ours. A ratio that is worse by more than the tolerance in the median of the runs is
a failure.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .codec_targets import OURS, PEER

Ratios = dict[tuple[str, str], float]


def ratios(reports: Iterable[Path]) -> Ratios:
    """Return, by operation and message, how many times longer the peer took: medians of runs."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for report in reports:
        times = {tuple(key): ns for *key, ns in json.loads(report.read_text())}
        for operation, name, library in times:
            if library == OURS and (operation, name, PEER) in times:
                ratio = times[operation, name, PEER] / times[operation, name, OURS]
                found[operation, name].append(ratio)
    return {key: statistics.median(values) for key, values in found.items()}


def worse(base: Ratios, head: Ratios, tolerance: float) -> list[tuple[str, str]]:
    """Return what both have and head does worse by more than ``tolerance`` (0.1 is 10%)."""
    return [key for key in base if key in head and head[key] < base[key] * (1 - tolerance)]


def main(arguments: list[str]) -> int:
    """Print both builds' ratios; fail where one got worse."""
    parser = argparse.ArgumentParser(prog="python -m bench compare", description=__doc__)
    parser.add_argument("--base", type=Path, nargs="+", required=True, metavar="JSON")
    parser.add_argument("--head", type=Path, nargs="+", required=True, metavar="JSON")
    parser.add_argument("--tolerance", type=float, default=0.1)
    options = parser.parse_args(arguments)
    base, head = ratios(options.base), ratios(options.head)
    failures = worse(base, head, options.tolerance)
    print(f"{'':<42}{'base x ' + PEER:>16}{'head x ' + PEER:>16}{'change':>9}")
    for key in sorted(base.keys() & head.keys()):
        words = "  WORSE" if key in failures else ""
        change = head[key] / base[key] - 1
        print(f"{' '.join(key):<42}{base[key]:>16.2f}{head[key]:>16.2f}{change:>+9.0%}{words}")
    return 1 if failures else 0
