"""circusd or supervisord with many live processes: its memory for each, and its idle time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..driver import Round, absent, drive
from ..processes import cpu_secs, memory_bytes

_SETTLE_SECS = 2.0


@contextmanager
def scale() -> Iterator[Round]:
    kind, count = sys.argv[1], int(sys.argv[2])
    daemon: Any
    if kind == "circus":
        from .circus_daemon import Circus

        daemon = Circus()
    else:
        from .supervisor_daemon import Supervisor

        daemon = Supervisor(count)
    with daemon:
        before = memory_bytes([daemon.pid])
        try:
            if kind == "circus":
                daemon.ask("incr", name="sleepers", nb=count - 1, waiting=True)
            else:
                daemon.rpc.startProcessGroup("sleepers")
        except Exception as error:
            daemon.close()
            absent(f"{kind} does not start {count} processes: {error}")
        time.sleep(_SETTLE_SECS)
        per_agent = (memory_bytes([daemon.pid]) - before) / count

        def one_round(*, operation: str, secs: float = 5.0, **_: Any) -> dict[str, Any]:
            if operation == "idle":
                used = cpu_secs([daemon.pid])
                time.sleep(secs)
                used = cpu_secs([daemon.pid]) - used
                return {"percent": used / secs * 100, "done": count}
            return {"KB": per_agent / 1e3, "done": count}

        yield one_round


if __name__ == "__main__":
    drive(scale)
