"""What is measured: a program that does one round of work for each line it is given.

Ours, the peers and the limits are all programs of their own, so that none pays for the heap,
the loop or the descriptors of another, and each can be run and profiled by itself. A program
writes what it is ready with as one JSON line, then for each JSON object on its stdin one
with the round's figures, and ends at the end of its stdin.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from .processes import cpu_by_process

__all__ = ["Absent", "Contestant", "Kind", "c_program", "program"]

Kind = Literal["ours", "peer", "limit"]

_REPOSITORY = Path(__file__).parent.parent
_END_SECS = 60.0
_ROUND_SECS = 300.0  # a contestant that says nothing for so long hangs


class Absent(Exception):
    """The contestant cannot take part here; the text says why."""


class Contestant:
    """A running program, as a context manager; ``round`` asks it for one round.

    ``facts`` is what it said when it was ready. Raises ``Absent`` if it says that it cannot be
    measured here, a package that is not installed above all.
    """

    def __init__(self, name: str, kind: Kind, command: Sequence[str]) -> None:
        self.name = name
        self.kind = kind
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_REPOSITORY,
            env=os.environ | {"PYTHONPATH": _python_path()},
            text=True,
        )
        try:
            self.facts = self._read()
        except BaseException:
            self.close()
            raise

    def round(self, **work: Any) -> dict[str, Any]:
        """Have it do one round and return its figures.

        ``cpu_secs`` among them is the processor time that its processes used meanwhile: what
        else goes on in the machine changes that much less than it does the time that passes.
        """
        assert self._process.stdin is not None
        before = cpu_by_process(self._process.pid)
        self._process.stdin.write(json.dumps(work) + "\n")
        self._process.stdin.flush()
        figures = self._read()
        after = cpu_by_process(self._process.pid)
        both = before.keys() & after.keys()
        return {"cpu_secs": sum(after[pid] - before[pid] for pid in both)} | figures

    def close(self) -> None:
        """End its stdin and wait until it has cleaned up and ended."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(_END_SECS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        watchdog = threading.Timer(_ROUND_SECS, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "absent" in answer:
            raise Absent(answer["absent"])
        return answer


def _python_path() -> str:
    known = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(_REPOSITORY), known] if known else [str(_REPOSITORY)])


def program(name: str, kind: Kind, module: str, *arguments: str) -> Contestant:
    """Start a Python program of this package: ``program("us", "ours", "ours.commands")``."""
    return Contestant(name, kind, [sys.executable, "-m", f"bench.{module}", *arguments])


def c_program(name: str, path: Path, *arguments: str) -> Contestant:
    """Start a compiled limit."""
    return Contestant(name, "limit", [str(path), *arguments])
