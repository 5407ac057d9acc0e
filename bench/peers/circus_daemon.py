"""circusd for a benchmark: a configuration file, the daemon, and its own client.

As its documentation says: watchers with numprocesses, controlled by CircusClient commands.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..driver import absent

try:
    from circus.client import CircusClient
except ImportError:
    absent("circus is not installed")

__all__ = ["Circus"]

_INI = """
[circus]
endpoint = tcp://127.0.0.1:%d
pubsub_endpoint = tcp://127.0.0.1:%d
check_delay = 5
warmup_delay = 0
statsd = false

[watcher:sleepers]
cmd = sleep infinity
numprocesses = 1
warmup_delay = 0
graceful_timeout = 1
copy_env = true
"""


class Circus:
    """A circusd with one watcher of ``sleep infinity``, one process of which runs."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="circus-bench-"))
        ports = _free_ports(2)
        (self._folder / "circus.ini").write_text(_INI % ports)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "circus.circusd", str(self._folder / "circus.ini")],
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "log").open("wb"),
        )
        self._client = CircusClient(endpoint=f"tcp://127.0.0.1:{ports[0]}", timeout=120)
        deadline = time.monotonic() + 20
        while True:
            try:
                CircusClient(endpoint=f"tcp://127.0.0.1:{ports[0]}", timeout=1).send_message(
                    "numwatchers"
                )
                return
            except Exception as error:
                if time.monotonic() > deadline:
                    self.close()
                    absent(f"circusd does not answer: {error}")

    def ask(self, command: str, **properties: Any) -> dict[str, Any]:
        """Send a command and return its answer. Raises if circus refuses."""
        answer: dict[str, Any] = self._client.send_message(command, **properties)
        if answer.get("status") == "error":
            raise RuntimeError(f"circus {command}: {answer.get('reason')}")
        return answer

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End it and what it runs."""
        with contextlib.suppress(Exception):
            self._client.stop()
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _free_ports(count: int) -> tuple[int, ...]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = tuple(each.getsockname()[1] for each in sockets)
    for each in sockets:
        each.close()
    return ports
