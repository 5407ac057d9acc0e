"""supervisord for a benchmark: a configuration file, the daemon, and its XML-RPC interface."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..driver import absent

if find_spec("supervisor") is None:
    absent("supervisor is not installed")

__all__ = ["Supervisor"]

_CONF = """
[unix_http_server]
file = %(folder)s/socket

[supervisord]
logfile = %(folder)s/log
pidfile = %(folder)s/pid
childlogdir = %(folder)s
nodaemon = true
minfds = %(descriptors)d
minprocs = 200

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[program:sleepers]
command = sleep infinity
process_name = %%(program_name)s_%%(process_num)05d
numprocs = %(count)d
autostart = false
autorestart = false
startsecs = 0
stopsignal = KILL
"""


class Supervisor:
    """A supervisord with a group of ``count`` programs ``sleep infinity``, none started yet."""

    def __init__(self, count: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="supervisor-bench-"))
        # Two pipes and two log files each, and some for itself.
        values = {"folder": self._folder, "count": count, "descriptors": 5 * count + 200}
        (self._folder / "supervisord.conf").write_text(_CONF % values)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", "supervisord.conf"],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        transport = _UnixTransport(str(self._folder / "socket"))
        proxy = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
        self.rpc: Any = proxy.supervisor
        deadline = time.monotonic() + 30
        while True:
            try:
                self.rpc.getState()
                return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    absent(f"supervisord does not answer: {error}")
                time.sleep(0.01)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End it and what it runs."""
        with contextlib.suppress(Exception):
            self.rpc.shutdown()
        try:
            self._process.wait(60)
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


class _UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over supervisord's Unix socket, as its own supervisorctl does."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _UnixConnection(self._path)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)
