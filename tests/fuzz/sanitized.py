"""Runs the wire tests on a core built with ASan and UBSan: ``python tests/fuzz/sanitized.py``.

Arguments go to pytest. Needs gcc and its sanitizer libraries.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from special_build import ROOT, build

FLAGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def library(name: str) -> str:
    """Return the path of one of the compiler's libraries."""
    return subprocess.run(
        [os.environ.get("CC", "gcc"), f"-print-file-name={name}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def main(arguments: list[str]) -> int:
    """Build, run the tests, return pytest's exit status."""
    with tempfile.TemporaryDirectory() as folder:
        source = build(Path(folder), FLAGS, FLAGS)
        environ = os.environ | {
            "PYTHONPATH": str(source),
            "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
            # The interpreter itself leaks at exit. Its own allocator would hide our errors.
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
            "DESCARTES_FAST_SANITIZED": "1",
        }
        command = [
            sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
            *(arguments or [str(ROOT / "tests" / "wire"), *map(str, unit_tests())]),
        ]  # fmt: skip
        return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode


def unit_tests() -> list[Path]:
    """Return the unit tests of what else is in the core: its classes, and what uses them."""
    unit = ROOT / "tests" / "unit"
    names = ("base64", "frames", "front", "quick_status", "subscription", "told")
    return [*sorted(unit.glob("test_messages*.py")), *(unit / f"test_{name}.py" for name in names)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
