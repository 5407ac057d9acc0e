"""Physical limits: small programs that do the bare work and nothing else.

The C ones are compiled where they are used, into a temporary directory.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import zmq

from ..contestants import Absent

__all__ = ["compiled"]

_HERE = Path(__file__).parent


@cache
def compiled(name: str) -> Path:
    """Return the program made of ``name``.c. Raises ``Absent`` without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Absent("there is no C compiler")
    path = Path(_folder().name) / name
    command = [compiler, "-O2", "-Wall", "-o", str(path), str(_HERE / f"{name}.c"), "-pthread"]
    if "zmq" in name:
        command += _libzmq()
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise Absent(f"{name}.c does not compile here: {made.stderr.strip()[-300:]}")
    return path


def _libzmq() -> list[str]:
    """Return how to link the very libzmq that pyzmq uses; its wheels bring one along."""
    site = Path(zmq.__file__).parent.parent
    for folder in (site / "pyzmq.libs", site / "zmq" / ".dylibs"):
        for library in folder.glob("libzmq*"):
            return [str(library), f"-Wl,-rpath,{folder}"]
    return ["-lzmq"]


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="descartes-fast-limits-")
