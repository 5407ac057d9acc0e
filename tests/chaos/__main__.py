"""``python -m tests.chaos --minutes 10``: a chaos run, its seed printed, its history checked."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos.checker import lost_starts, unknown_ends, violations
from chaos.run import ChaosRun, RunSettings, summary

_DISK_VARIABLE = "CHAOS_DISK"
_DISK_MIB = 256
_MOUNT = 'mount -t tmpfs -o "size=$1m,mode=0700" none "$2" && shift 2 && exec "$@"'
_NAMESPACES = (["unshare", "-m"], ["unshare", "-Urm"])
_VIOLATIONS_TOLD = 30


def main() -> int:
    """Run in a mount namespace with a small disk for the state, where that may be had."""
    arguments = _parser().parse_args()
    if _DISK_VARIABLE in os.environ:
        return _run(arguments, Path(os.environ[_DISK_VARIABLE]))
    disk = Path(tempfile.mkdtemp(prefix="dfast-"))
    try:
        for namespace in _NAMESPACES:
            command = [*namespace, "sh", "-c", _MOUNT, "sh", str(_DISK_MIB), str(disk)]
            if _succeeds([*command, "true"]):
                again = [sys.executable, str(Path(__file__).parent), *sys.argv[1:]]
                environment = os.environ | {_DISK_VARIABLE: str(disk)}
                return subprocess.call([*command, *again], env=environment)
        print("no small disk can be mounted here: no full disks in this run", flush=True)
        return _run(arguments, None)
    finally:
        disk.rmdir()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (1)")
    parser.add_argument("--seed", type=int, help="repeat the schedule of an earlier run")
    parser.add_argument("--clients", type=int, default=3, help="how many client processes (3)")
    parser.add_argument("--keep", action="store_true", help="leave the records of a good run too")
    parser.add_argument("--plan", action="store_true", help="only print the schedule of the faults")
    return parser


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _run(arguments: argparse.Namespace, disk: Path | None) -> int:
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="dfast-"))
    settings = RunSettings(
        seed=seed,
        secs=arguments.minutes * 60,
        clients=arguments.clients,
        folder=folder,
        disk=disk,
    )
    if arguments.plan:
        print(*settings.faults(), sep="\n")
        folder.rmdir()
        return 0
    run = ChaosRun(settings)
    history = asyncio.run(run.run())
    wrong = violations(history)
    print(summary(run))
    print(
        f"at killed keepers: {unknown_ends(history)} ends that nobody saw, "
        f"{lost_starts(history)} starts that may have been"
    )
    for words in wrong[:_VIOLATIONS_TOLD]:
        print(f"VIOLATION {words}")
    print(f"seed {seed}: {len(wrong)} violations")
    if wrong or arguments.keep:
        print(f"the records are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
