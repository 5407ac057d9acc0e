"""Supervisor: one signalAllProcesses call, and one getAllProcessInfo call."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..driver import Round, drive
from .supervisor_daemon import Supervisor


@contextmanager
def signals() -> Iterator[Round]:
    count = int(sys.argv[1])
    with Supervisor(count) as supervisor:
        supervisor.rpc.startProcessGroup("sleepers")

        def one_round(*, batches: int, operation: str) -> dict[str, Any]:
            done = 0
            begun = time.perf_counter()
            for _ in range(batches):
                if operation == "signal":
                    answers = supervisor.rpc.signalAllProcesses("URG")
                    done += sum(answer["description"] == "OK" for answer in answers)
                else:
                    answers = supervisor.rpc.getAllProcessInfo()
                    done += sum(answer["statename"] == "RUNNING" for answer in answers)
            return {"rate": done / (time.perf_counter() - begun), "done": done}

        yield one_round


if __name__ == "__main__":
    drive(signals)
