"""The table of ``python -m bench codec``: each library beside ours, in nanoseconds and ratios.

Every library runs in a process of its own, on the same messages, one after the other and as
often as ``--rounds`` says; the table shows medians of the runs' medians. ``--check`` holds them
against the targets instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

from . import codec_targets
from .codec_targets import NOT_IN_MEANS, OURS, PEER, PLAIN, Times

LIBRARIES = (OURS, PEER, "msgpack", "ormsgpack", "json")
DECODERS = (*LIBRARIES, PLAIN)
OPERATIONS = ("decode", "decode and read all", "encode", "make and encode")
NOTES = {
    "decode": f"{PLAIN}: strings for enums, bytes for ids",
    "decode and read all": f"{OURS} keeps the 1,024 ids read last, and here they come again:"
    " each that is new has to be made, and takes longer",
    "encode": "payloads, maps and lists were written when the message was made:"
    " `make and encode` counts that too",
}
# A machine that others use is slow now and then; a codec that is slow is so every time.
ATTEMPTS = 3


def measure(library: str, max_time_secs: float) -> list[dict[str, object]]:
    """Run the benchmarks of one library and return what pytest-benchmark saw."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
            "-c", os.devnull, "--rootdir", str(Path(__file__).parent.parent),
            "-o", "python_files=bench_*.py", "-o", "python_functions=bench_*",
            "--benchmark-disable-gc", "--benchmark-warmup=on",
            f"--benchmark-max-time={max_time_secs}", "--benchmark-min-time=0.0002",
            f"--benchmark-json={report}", str(Path(__file__).with_name("bench_codec.py")),
        ]  # fmt: skip
        environ = os.environ | {"DESCARTES_FAST_BENCH_LIBRARY": library}
        ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise SystemExit(ran.stdout + ran.stderr)
        found: list[dict[str, object]] = json.loads(report.read_text())["benchmarks"]
        return found


def collect(
    libraries: tuple[str, ...], rounds: int, max_time_secs: float
) -> tuple[dict[tuple[str, str, str], list[float]], dict[tuple[str, str], int]]:
    """Return the median of every round in nanoseconds, and the sizes."""
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    sizes = {}
    for _ in range(rounds):
        for library in libraries:
            for entry in measure(library, max_time_secs):
                info: dict[str, str] = entry["extra_info"]  # type: ignore[assignment]
                stats: dict[str, float] = entry["stats"]  # type: ignore[assignment]
                median = stats["median"] / int(info["times"]) * 1e9
                times[info["operation"], info["message"], library].append(median)
                sizes[info["message"], library] = int(info["size"])
    return times, sizes


def table(times: dict[tuple[str, str, str], list[float]], sizes: dict[tuple[str, str], int]) -> str:
    """Return the table: nanoseconds of ours, and how many times longer the others take."""
    messages = list(dict.fromkeys(message for _, message, _ in times))
    lines = []
    for operation in OPERATIONS:
        libraries = [lib for lib in DECODERS if (operation, messages[0], lib) in times]
        others = [lib for lib in libraries if lib != OURS]
        lines.append(
            f"{operation:<20}{'bytes':>7}{OURS + ' ns':>20}{'spread':>8}"
            + "".join(f"{'x ' + lib:>16}" for lib in others)
        )
        ratios: dict[str, list[float]] = defaultdict(list)
        for message in messages:
            ours = times[operation, message, OURS]
            mine = statistics.median(ours)
            row = f"{message:<20}{sizes[message, OURS]:>7}{mine:>20.0f}"
            row += f"{(max(ours) - min(ours)) / mine:>8.0%}"
            for lib in others:
                ratio = statistics.median(times[operation, message, lib]) / mine
                row += f"{ratio:>16.2f}"
                if message != NOT_IN_MEANS:
                    ratios[lib].append(ratio)
            lines.append(row)
        means = "".join(f"{statistics.geometric_mean(ratios[lib]):>16.2f}" for lib in others)
        lines.append(f"{'geometric mean':<20}{'without ' + NOT_IN_MEANS:>35}{means}")
        if operation in NOTES:
            lines.append(f"({NOTES[operation]})")
        lines.append("")
    lines.append(
        "bytes: "
        + ", ".join(
            f"{message} {sizes[message, OURS]} (json {sizes[message, 'json']})"
            for message in messages
        )
    )
    return "\n".join(lines)


def measured(rounds: int = 3, max_time_secs: float = 0.1) -> str:
    """Measure all libraries; return the table, with the machine and the versions above it."""
    names = ", ".join(f"{name} {version(name)}" for name in LIBRARIES[:-1])
    return (
        f"Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores; "
        f"{names}\nx: how many times longer the other library takes\n\n"
        + table(*collect(DECODERS, rounds, max_time_secs))
    )


def check(rounds: int, max_time_secs: float) -> int:
    """Hold the best of the rounds against the targets; measure again before calling it missed."""
    times: Times = {}
    for attempt in range(1, ATTEMPTS + 1):
        for key, found in collect((OURS, PEER, PLAIN), rounds, max_time_secs)[0].items():
            times[key] = min(*found, times.get(key, found[0]))
        print(codec_targets.summary(times))
        missed = codec_targets.missed(times)
        if not missed:
            return 0
        print(f"attempt {attempt} of {ATTEMPTS}: " + "; ".join(missed))
    return 1


def main(arguments: list[str]) -> int:
    """Measure and print. ``--json`` prints the medians as JSON, for a comparison of two builds."""
    parser = argparse.ArgumentParser(prog="python -m bench codec", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-time", type=float, default=0.1, help="seconds for each benchmark")
    parser.add_argument("--json", action="store_true", help="the medians only")
    parser.add_argument("--check", action="store_true", help="fail where a target is missed")
    options = parser.parse_args(arguments)
    if options.check:
        return check(options.rounds, options.max_time)
    if options.json:
        times, _ = collect(DECODERS, options.rounds, options.max_time)
        print(json.dumps([[*key, statistics.median(found)] for key, found in times.items()]))
        return 0
    print(measured(options.rounds, options.max_time))
    return 0
