"""Builds the package with other compiler flags, beside the tree: for fuzzing and sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def build(into: Path, flags: list[str], link_flags: list[str] | None = None) -> Path:
    """Build the package with ``flags`` added and return the folder to import it from."""
    into.mkdir(parents=True, exist_ok=True)
    source = into / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(
        ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    environ = os.environ | {
        "CFLAGS": " ".join(["-g", "-O1", "-fno-omit-frame-pointer", *flags]),
        "LDFLAGS": " ".join(link_flags or []),
    }
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace", f"-j{os.cpu_count() or 1}"],
        cwd=source,
        env=environ,
        check=True,
    )
    return source / "src"
