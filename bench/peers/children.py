"""Server processes of peers: they end with the contestant that started them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["child_server"]

_END_SECS = 10.0


@contextmanager
def child_server(module: str, *arguments: str) -> Iterator[list[str]]:
    """Run a server module of this package; yield the words of the line it says when ready."""
    command = [sys.executable, "-m", f"bench.{module}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            words = process.stdout.readline().split()
            if not words:
                raise RuntimeError(f"{module} did not start")
            yield words
        finally:
            process.terminate()
            try:
                process.wait(_END_SECS)
            except subprocess.TimeoutExpired:
                process.kill()
