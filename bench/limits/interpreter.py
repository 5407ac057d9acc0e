"""A Python that imports what a server of this kind cannot do without, and ends."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..driver import Round, drive

_IMPORTS = "import asyncio, sqlite3, msgpack, uvloop, zmq"


@contextmanager
def interpreters() -> Iterator[Round]:
    def one_round(**_: Any) -> dict[str, Any]:
        begun = time.perf_counter()
        code = subprocess.run([sys.executable, "-c", _IMPORTS], check=False).returncode
        return {"ms": (time.perf_counter() - begun) * 1e3, "done": int(code == 0)}

    yield one_round


if __name__ == "__main__":
    drive(interpreters)
