"""Supervisor: startProcess one by one, or startProcessGroup, then stopProcessGroup."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..driver import Round, drive
from .supervisor_daemon import Supervisor


@contextmanager
def spawns() -> Iterator[Round]:
    with Supervisor(int(sys.argv[1])) as supervisor:

        def one_round(*, count: int, in_flight: int) -> dict[str, Any]:
            rpc = supervisor.rpc
            begun = time.perf_counter()
            if in_flight == 1:
                for number in range(count):
                    rpc.startProcess(f"sleepers:sleepers_{number:05d}")
            else:
                rpc.startProcessGroup("sleepers")
            secs = time.perf_counter() - begun
            done = sum(each["statename"] == "RUNNING" for each in rpc.getAllProcessInfo())
            rpc.stopProcessGroup("sleepers")
            return {"rate": done / secs, "done": min(done, count)}

        yield one_round


if __name__ == "__main__":
    drive(spawns)
