"""``python -m bench``: lists the benchmarks, runs them, and makes the report of a run."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LAYERS = {
    "commands": "get_status: lock-step and pipelined, one and eight clients",
    "batch": "one command for 1,000 live agents: a signal, their status",
    "status": "status updates to one and sixteen typed subscriptions",
    "logs": "log bytes from one and 100 agents, ASCII and UTF-8",
    "spawn": "one, many, and commands during a storm of spawns and a flood of logs",
    "scale": "100, 1,000 and 5,000 live agents: list, status, memory, idle CPU, spawns",
    "startup": "to the first answer, and to having the agents back after a crash",
}
# These have command lines and tables of their own.
TABLES = {
    "codec": "encoding and decoding beside other libraries; --check: the targets",
    "compare": "two builds by their ratios: --base JSON... --head JSON...",
    "journal": "what the journal costs: servers with it and without",
}

_HERE = Path(__file__).parent


def main(arguments: list[str]) -> int:
    """Run what the command line names; without anything, list what there is."""
    if arguments and arguments[0] in TABLES:
        status: int = importlib.import_module(f".{arguments[0]}", __package__).main(arguments[1:])
        return status
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("layers", nargs="*", metavar="LAYER", help="commands, batch, ...")
    parser.add_argument("--report", action="store_true", help="all layers, and bench/RESULTS.md")
    parser.add_argument("--quick", action="store_true", help="small scales: does it all work?")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep what was measured there")
    parser.add_argument("--load", type=Path, metavar="FOLDER", help="report what was saved there")
    parser.add_argument("-k", metavar="WORDS", default="", help="only benchmarks that match")
    options = parser.parse_args(arguments)
    unknown = [layer for layer in options.layers if layer not in LAYERS]
    if unknown:
        parser.error(f"there is no {unknown[0]!r}; there are {', '.join((*LAYERS, *TABLES))}")
    if not (options.layers or options.report or options.load):
        for name, words in (LAYERS | TABLES).items():
            print(f"python -m bench {name:<9} {words}")
        print("python -m bench --report  all but the last two, with a table of the targets")
        return 0
    try:
        return _run(options)
    except ImportError as error:
        print(f"python -m bench: {error}; pip install -e '.[bench]'", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from .figures import load
    from .report import report, write

    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = options.load or options.save or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.load is None:
            for layer in options.layers or LAYERS:
                failed |= not _measure(layer, folder / f"{layer}.json", options)
        known = [folder / f"{layer}.json" for layer in LAYERS]
        figures = load(path for path in known if path.exists() and path.stat().st_size)
    codec = _codec() if options.report and not options.quick else ""
    print(report(figures, codec))
    if failed:
        print("some benchmarks failed, and are not in the tables: see above", file=sys.stderr)
        return 1
    if options.report:
        print(f"written: {write(figures, codec, _HERE)}")
    return 0


def _codec() -> str:
    from .codec import measured

    print(f"codec: {TABLES['codec']}", file=sys.stderr, flush=True)
    return measured()


def _measure(layer: str, path: Path, options: argparse.Namespace) -> bool:
    """Run one layer; return whether all of it could be measured and was right."""
    path.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio",
        "-c", os.devnull, "--rootdir", str(_HERE.parent), "-k", options.k,
        "-o", "python_files=bench_*.py", "-o", "python_functions=bench_*",
        "--benchmark-json", str(path), "--benchmark-quiet",
        str(_HERE / f"bench_{layer}.py"), *(["--quick"] if options.quick else []),
    ]  # fmt: skip
    print(f"{layer}: {LAYERS[layer]}", file=sys.stderr, flush=True)
    code = subprocess.run(command, cwd=_HERE.parent, stdout=sys.stderr, check=False).returncode
    return code == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
