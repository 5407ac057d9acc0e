"""os.kill() in a bare loop over sleeping children: the same from Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..driver import Round, drive


@contextmanager
def kills() -> Iterator[Round]:
    children = [subprocess.Popen(["sleep", "infinity"]) for _ in range(int(sys.argv[1]))]
    pids = [child.pid for child in children]

    def one_round(*, batches: int, **_: Any) -> dict[str, Any]:
        kill, number = os.kill, signal.SIGURG
        begun = time.perf_counter()
        for _batch in range(batches):
            for pid in pids:
                kill(pid, number)
        secs = time.perf_counter() - begun
        return {"rate": batches * len(pids) / secs, "done": batches * len(pids)}

    try:
        yield one_round
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()


if __name__ == "__main__":
    drive(kills)
