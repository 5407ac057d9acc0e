"""From the start of circusd or supervisord to its first answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..driver import Round, drive


@contextmanager
def startup() -> Iterator[Round]:
    make: Any
    if sys.argv[1] == "circus":
        from .circus_daemon import Circus as make  # noqa: N813, RUF100
    else:
        from .supervisor_daemon import Supervisor

        def make() -> Supervisor:
            return Supervisor(1)

    def one_round(**_: Any) -> dict[str, Any]:
        begun = time.perf_counter()
        with make():
            return {"ms": (time.perf_counter() - begun) * 1e3, "done": 1}

    yield one_round


if __name__ == "__main__":
    drive(startup)
