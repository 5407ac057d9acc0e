"""The report: every figure beside its peers and its limit, and the targets reached or not."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import zmq

from .figures import Figure, Spread
from .names import OURS
from .plots import plots
from .targets import TARGETS, Bound, Target

__all__ = ["missed", "report", "write"]

_PACKAGES = (
    "descartes-fast", "pyzmq", "msgpack", "uvloop", "msgspec", "grpcio", "circus", "supervisor"
)  # fmt: skip


def report(figures: Mapping[str, Figure], codec: str) -> str:
    """Return the report as Markdown, with the codec's table if there is one."""
    return "\n".join(
        (
            "# Benchmarks\n",
            *_machine(figures),
            "\n## Targets\n",
            *_targets(figures),
            "\n## Figures\n",
            *_figures(figures),
            *(("### codec\n", "```", codec, "```\n") if codec else ()),
        )
    )


def write(figures: Mapping[str, Figure], codec: str, folder: Path) -> Path:
    """Write RESULTS.md and its plots; return its path."""
    drawn = plots(figures)
    path = folder / "RESULTS.md"
    images = [f"![{name.removesuffix('.svg')}](plots/{name})" for name in drawn]
    text = report(figures, codec)
    if images:
        text += "\n## Plots\n\n" + "\n\n".join(images) + "\n"
    path.write_text(text)
    (folder / "plots").mkdir(exist_ok=True)
    for name, svg in drawn.items():
        (folder / "plots" / name).write_text(svg)
    return path


def missed(figures: Mapping[str, Figure]) -> list[Target]:
    """Return the targets whose least is not reached, among the figures that are there."""
    return [
        target
        for target in TARGETS
        if target.figure in figures
        and not _reached(target, target.at_least, figures[target.figure])
    ]


def _machine(figures: Mapping[str, Figure]) -> Iterator[str]:
    packages = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}, {_processor()}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.release()}, {platform.python_implementation()} "
        f"{platform.python_version()}; libzmq {zmq.zmq_version()}, {packages}."
    )
    yield ""
    yield (
        "Medians, quartiles in brackets. Contestants take turns, round by round, and a ratio is "
        "that of two rounds next to each other: ratios carry over to other machines, absolute "
        "figures do not. CPU is what all processes of a contestant used, its clients, servers and "
        "agents that lived through the round. Ours is a server in a process of its own and the "
        "public client over TCP on the loopback; the peers are set up as their documentation says."
    )
    if any(figure.quick for figure in figures.values()):
        yield ""
        yield "**A quick run: small scales, two rounds. Not to be relied on.**"


def _targets(figures: Mapping[str, Figure]) -> Iterator[str]:
    yield "| | against | ours | it | ratio | at least | aim | |"
    yield "|---|---|---|---|---|---|---|---|"
    for target in TARGETS:
        figure = figures.get(target.figure)
        if figure is None:
            continue
        against = next(
            (bound.against for bound in (target.at_least, target.aim) if bound and bound.against),
            None,
        )
        theirs = figure.spread(against) if against else None
        ratio = figure.ratio(against) if against else None
        sign = "≤ " if target.below else ""
        live = figure.beside.get("live")
        cells = [
            target.words if live is None else f"{target.words} (only {live:,} live)",
            against or "",
            f"{_spread(figure.spread(OURS))} {figure.unit}",
            "" if theirs is None else _number(theirs.median),
            "" if ratio is None else _spread(ratio),
            sign + _bound(target.at_least, figure),
            sign + _bound(target.aim, figure) if target.aim else "",
            _verdict(target, figure),
        ]
        yield f"| {' | '.join(cells)} |"
    for target in TARGETS:
        figure = figures.get(target.figure)
        aim = target.aim or target.at_least
        if figure is not None and target.bounded_by and not _reached(target, aim, figure):
            yield ""
            yield f"What keeps {target.words} from the aim, on AMD EPYC: {target.bounded_by}"
    absent = [target.words for target in TARGETS if target.figure not in figures]
    if absent:
        yield ""
        yield f"Not measured in this run: {'; '.join(dict.fromkeys(absent))}."


def _verdict(target: Target, figure: Figure) -> str:
    if _reached(target, target.at_least, figure):
        aim = target.aim is not None and _reached(target, target.aim, figure)
        return "aim reached" if aim else "reached"
    return "**not reached**"


def _reached(target: Target, bound: Bound, figure: Figure) -> bool:
    spread = figure.ratio(bound.against) if bound.against else figure.spread(OURS)
    if spread is None:
        return False
    return spread.median <= bound.value if target.below else spread.median >= bound.value


def _figures(figures: Mapping[str, Figure]) -> Iterator[str]:
    for figure in figures.values():
        better = "lower is better" if figure.lower_is_better else "higher is better"
        yield f"### {figure.name}"
        yield ""
        cpu = "CPU ms/MB" if figure.unit == "MB/s" else "CPU µs each"
        yield f"| {figure.unit}, {better} | | | ours ÷ it | p50 µs | p99 µs | {cpu} |"
        yield "|---|---|---|---|---|---|---|"
        for name, kind in figure.kinds.items():
            ratio = None if name == OURS else figure.ratio(name)
            cells = [
                name,
                kind,
                _spread(figure.spread(name)),
                "" if ratio is None else _spread(ratio),
                *(_median(figure.spread(name, value)) for value in ("p50", "p99")),
                _median(figure.cpu(name)),
            ]
            yield f"| {' | '.join(cells)} |"
        yield ""
        for name, words in figure.absent.items():
            yield f"{name}: {words}."
            yield ""
        if figure.beside:
            facts = ", ".join(
                f"{name}: {value:.0f}" if isinstance(value, float) else f"{name}: {value}"
                for name, value in figure.beside.items()
                if value not in ([], "")
            )
            yield f"{facts}."
            yield ""


def _bound(bound: Bound, figure: Figure) -> str:
    if bound.against is None:
        return f"{_number(bound.value)} {figure.unit}"
    return f"{bound.value:g} x it"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{_number(spread.median)} ({_number(spread.low)} to {_number(spread.high)})"


def _median(spread: Spread | None) -> str:
    return "" if spread is None else _number(spread.median)


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    try:
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return platform.machine()
