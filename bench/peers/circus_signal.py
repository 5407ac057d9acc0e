"""Circus: one signal command for all processes of a watcher."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..driver import Round, drive
from .circus_daemon import Circus


@contextmanager
def signals() -> Iterator[Round]:
    count = int(sys.argv[1])
    with Circus() as circus:
        circus.ask("incr", name="sleepers", nb=count - 1, waiting=True)

        def one_round(*, batches: int, **_: Any) -> dict[str, Any]:
            begun = time.perf_counter()
            for _batch in range(batches):
                circus.ask("signal", name="sleepers", signum="urg")
            secs = time.perf_counter() - begun
            running = circus.ask("numprocesses", name="sleepers")["numprocesses"]
            return {"rate": running * batches / secs, "done": running * batches}

        yield one_round


if __name__ == "__main__":
    drive(signals)
