"""A keeper's process and its socket without the server's end: frames and descriptors."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from descartes_fast.server import keeper_process
from descartes_fast.server.keeper import passing
from descartes_fast.server.keeper.protocol import VERSION, FrameReader, frame
from descartes_fast.server.keeper.trees import MARKER

__all__ = [
    "INSTANCE",
    "RawKeeper",
    "RawServer",
    "held_program",
    "raw_keeper",
    "wait_until",
    "wait_until_prepared",
]

INSTANCE = secrets.token_hex(8)
"""Of these agents, so that those of other tests on this machine are left alone."""
_SECS = 10.0
_F_SETSIG = 10  # <fcntl.h>; the fcntl module has no name for it


def wait_until(condition: Callable[[], object], timeout_secs: float = _SECS) -> None:
    """Wait until ``condition`` holds."""
    stop_at = time.monotonic() + timeout_secs
    while not condition():
        assert time.monotonic() < stop_at, "waited for too long"
        time.sleep(0.002)


@contextmanager
def held_program(directory: Path, original: str = "/bin/sleep") -> Iterator[Path]:
    """Yield a program whose exec hangs until the end: who opens it waits for a lease on it."""
    program = directory / "program"
    shutil.copy(original, program)
    fd = os.open(program, os.O_RDONLY)
    try:
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)  # which is ignored
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield program
    finally:
        os.close(fd)


def wait_until_prepared(launch: dict[str, Any]) -> None:
    """Wait until a launch has its directory: the launcher has it then, or will in a moment."""
    wait_until(Path(launch["stdout_path"]).parent.exists)


class RawKeeper:
    """Starts keepers in one place and connects to them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runtime = directory / "run"
        self.runtime.mkdir(mode=0o700)
        self.socket_path = self.runtime / "keeper.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self._servers: list[RawServer] = []

    @property
    def pid(self) -> int:
        """The process id of the keeper that was started last."""
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """What the keepers have said."""
        return (self.runtime / "keeper.log").read_text()

    def command(self, build: str = "") -> list[str]:
        """Return the arguments of a keeper."""
        program = [sys.executable, *keeper_process.PYTHON_OPTIONS, str(keeper_process._PROGRAM)]
        return [
            *program,
            "--socket",
            str(self.socket_path),
            "--instance",
            INSTANCE,
            "--build",
            build,
        ]

    def start(self, build: str = "") -> bytes:
        """Start a keeper; return what it prints, ``ready`` or nothing."""
        with open(self.runtime / "keeper.log", "ab") as log:
            self.process = subprocess.Popen(
                self.command(build), stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            return stdout.readline()

    def connect(self) -> RawServer:
        """Connect without a word."""
        server = RawServer(str(self.socket_path))
        self._servers.append(server)
        return server

    def greet(self, on_disconnect: str = "keep") -> RawServer:
        """Connect and say hello."""
        server = self.connect()
        server.hello(on_disconnect)
        return server

    def kill(self) -> None:
        """Kill the keeper."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(_SECS)

    def launch_fields(self, script: str, **settings: Any) -> dict[str, Any]:
        """Return the fields of a launch of a shell script."""
        agent = settings.pop("agent", None) or str(uuid4())
        folder = self.directory / "agents" / agent
        usual = {
            "agent": agent,
            "argv": ["sh", "-c", script],
            "environment": {"PATH": os.environ["PATH"], MARKER: f"{INSTANCE}/{agent}"},
            "cwd": None,
            "stdin": "null",
            "stdout_path": str(folder / "stdout"),
            "stderr_path": str(folder / "stderr"),
            "output_limit_bytes": 1 << 24,
            "output_policy": "trim",
            "limits": {},
        }
        return {**usual, **settings}

    def stdout(self, agent: str) -> bytes:
        """Return what an agent has said so far."""
        path = self.directory / "agents" / agent / "stdout"
        return path.read_bytes() if path.exists() else b""

    def close(self) -> None:
        """End the keeper and everything it has."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(OSError, AssertionError):
                self.greet("end").ask("end", grace_secs=0)
            try:
                self.process.wait(_SECS)
            except subprocess.TimeoutExpired:
                self.kill()
        for server in self._servers:
            server.close()


class RawServer:
    """One connection to a keeper."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_SECS)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._reader = FrameReader()
        self._arrivals = passing.Arrivals()
        self._replies: dict[int, dict[str, Any]] = {}
        self._received: dict[int, list[int]] = {}
        self._last_id = 0
        self.keeps_descriptors = False
        """Whether what comes with replies is kept; a duplicate of stdin keeps it open."""
        self.events: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []
        """Replies and events in the order in which they came."""
        self.is_over = False

    def send(
        self, operation: str, body: bytes = b"", descriptors: Sequence[int] = (), **fields: Any
    ) -> int:
        """Send a request; return its id."""
        self._last_id += 1
        if isinstance(fields.get("environment"), dict):
            pairs = [f"{name}={value}" for name, value in fields["environment"].items()]
            fields["environment"] = "\0".join(pairs)
        data = frame({"op": operation, "id": self._last_id, **fields}, body)
        count = passing.send(self._socket, data, descriptors)
        self._socket.sendall(data[count:])
        return self._last_id

    def ask(
        self, operation: str, body: bytes = b"", descriptors: Sequence[int] = (), **fields: Any
    ) -> dict[str, Any]:
        """Send a request; return its reply."""
        return self.reply(self.send(operation, body, descriptors, **fields))

    def reply(self, request_id: int) -> dict[str, Any]:
        """Return the reply to a request."""
        self.read_until(lambda: request_id in self._replies)
        assert request_id in self._replies, "the connection ended before the reply"
        return self._replies[request_id]

    def hello(self, on_disconnect: str = "keep") -> dict[str, Any]:
        """Say hello; return the reply."""
        return self.ask("hello", version=VERSION, on_disconnect=on_disconnect)

    def is_greeted(self) -> bool:
        """Say hello; tell whether this is the keeper's server now."""
        return "pid" in self.hello()

    def take_descriptors(self, reply: dict[str, Any]) -> list[int]:
        """Return the descriptors that came with a reply; the caller closes them."""
        return self._received.pop(reply["re"], [])

    def ended(self, agent: str) -> dict[str, Any]:
        """Wait for the end of an agent; return it."""

        def found() -> list[dict[str, Any]]:
            return [e for e in self.events if e["event"] == "ended" and e["agent"] == agent]

        self.read_until(lambda: bool(found()))
        (end,) = found()
        return end

    def entry(self, agent: str) -> dict[str, Any]:
        """Return what ``list`` says of an agent."""
        (entry,) = [one for one in self.ask("list")["agents"] if one["agent"] == agent]
        return entry

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Read until ``condition`` holds or the connection ends."""
        while not condition() and not self.is_over:
            try:
                data, batches = passing.receive(self._socket, 1 << 16)
            except ConnectionError:
                data, batches = b"", []
            self._arrivals.put(batches)
            self.is_over = not data
            for header, _ in self._reader.feed(data):
                self.frames.append(header)
                if "re" in header:
                    self._replies[header["re"]] = header
                    if "ended" in header:
                        self.events.append(header["ended"])
                    received = self._arrivals.take_list(header) or []
                    if self.keeps_descriptors:
                        self._received[header["re"]] = received
                    else:
                        passing.close_all(received)
                else:
                    self.events.append(header)

    def wait_for_end(self) -> None:
        """Read until the keeper has closed the connection."""
        self.read_until(lambda: False)

    def has_something_to_read(self) -> bool:
        """Whether there are bytes, or the end."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def close(self) -> None:
        """Close the connection and what came with it. Twice is fine."""
        self._socket.close()
        for descriptors in self._received.values():
            passing.close_all(descriptors)
        self._received.clear()


@contextmanager
def raw_keeper(directory: Path) -> Iterator[RawKeeper]:
    """Start a keeper with everything in ``directory``; end what is left of it and its agents."""
    keeper = RawKeeper(directory)
    try:
        assert keeper.start() == b"ready\n"
        yield keeper
    finally:
        keeper.close()
        kill_marked()


def kill_marked() -> None:
    """Kill what is marked as an agent's: the agents of a keeper that was killed."""
    marker = f"{MARKER}={INSTANCE}/".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if marker in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)
