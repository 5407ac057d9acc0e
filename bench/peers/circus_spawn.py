"""Circus: processes of a watcher, incremented one by one or all at once, then taken back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..driver import Round, drive
from .circus_daemon import Circus


@contextmanager
def spawns() -> Iterator[Round]:
    with Circus() as circus:

        def one_round(*, count: int, in_flight: int) -> dict[str, Any]:
            together = 1 if in_flight == 1 else count
            begun = time.perf_counter()
            for _ in range(count // together):
                circus.ask("incr", name="sleepers", nb=together, waiting=True)
            secs = time.perf_counter() - begun
            done = len(circus.ask("list", name="sleepers")["pids"]) - 1
            circus.ask("decr", name="sleepers", nb=count, waiting=True)
            return {"rate": count / secs, "done": done}

        yield one_round


if __name__ == "__main__":
    drive(spawns)
