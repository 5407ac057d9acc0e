"""A server in a process of its own that is killed and started again, with the same state."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from command_line import COMMAND, clean_environment
from descartes_fast import (
    HealthCheckRequest,
    ListAgentsRequest,
    deserialize_zmq_message,
    serialize_zmq_message,
)
from leaks import descendants

__all__ = ["RestartableServer", "restartable_server", "sweep", "wait_until_gone"]

if sys.platform != "linux":
    pytest.skip("what is left of killed servers is found in /proc", allow_module_level=True)

_TOML = """\
[zmq_server]
endpoint = "ipc://{folder}/commands"
pub_endpoint = "ipc://{folder}/events"
state_dir = "{state}"
server_id = "restarts"
stop_grace_secs = 2
{settings}

[backends.sh]
command = ["sh", "-c", "{{task}}"]
stdin = "pipe"
environment = ["PATH"]

[backends.py]
command = ["{python}", "-I", "-S", "-c", "{{task}}"]
stdin = "pipe"
environment = ["PATH"]
"""

_START_SECS = 20.0
_STOP_SECS = 30.0
_ASK_AGAIN_SECS = 0.25
_GONE_SECS = 10.0
_MARKER = b"DESCARTES_FAST_AGENT="


class RestartableServer:
    """A server with the backends ``sh`` and ``py``, whose task is the program.

    ``folder`` holds its configuration, its endpoints and what it says; ``state`` (default: in the
    folder) is its state directory. ``settings`` are more lines for ``[zmq_server]``.
    """

    def __init__(self, folder: Path, *, settings: str = "", state: Path | None = None) -> None:
        self.folder = folder
        self.state = folder / "state" if state is None else state
        self.endpoint = f"ipc://{folder}/commands"
        self.pub_endpoint = f"ipc://{folder}/events"
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._config = folder / "config.toml"
        self._config.write_text(
            _TOML.format(folder=folder, state=self.state, settings=settings, python=sys.executable)
        )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, *options: str, wrapper: tuple[str, ...] = ()) -> float:
        """Start it; return the seconds from its exec to its first answered health check."""
        began = self.launch(*options, wrapper=wrapper)
        self.ask(HealthCheckRequest(request_id="first"))
        return time.monotonic() - began

    def launch(self, *options: str, wrapper: tuple[str, ...] = ()) -> float:
        """Start its process and do not wait for anything; return the time."""
        assert not self.runs
        with self.log.open("ab") as log:
            began = time.monotonic()
            self.process = subprocess.Popen(
                [*wrapper, *COMMAND, "serve", "--config", str(self._config), *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=clean_environment(),
            )
        return began

    def kill(self) -> None:
        """SIGKILL it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def restart(self) -> float:
        """SIGKILL it and start it; return how long that took, as :meth:`start`."""
        self.kill()
        return self.start()

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        return self.process.wait(_STOP_SECS)

    def ask(self, request: object, timeout_secs: float = _START_SECS) -> object:
        """Ask on a connection of its own, again and again while there is no answer.

        For requests that change nothing. Raises ``AssertionError`` with the server's words if it
        ends instead.
        """
        body = serialize_zmq_message(request)  # type: ignore[arg-type]
        deadline = time.monotonic() + timeout_secs
        with zmq.Context() as context, context.socket(zmq.DEALER) as asking:
            for name, value in (("LINGER", 0), ("RECONNECT_IVL", 2), ("RECONNECT_IVL_MAX", 4)):
                asking.set(getattr(zmq, name), value)
            asking.set(zmq.IMMEDIATE, 1)
            asking.connect(self.endpoint)
            while time.monotonic() < deadline:
                with contextlib.suppress(zmq.Again):
                    asking.set(zmq.SNDTIMEO, int(_ASK_AGAIN_SECS * 1000))
                    asking.send_multipart([b"", body])
                    if asking.poll(int(_ASK_AGAIN_SECS * 1000)):
                        return deserialize_zmq_message(asking.recv_multipart()[-1])
                assert self.runs, f"the server has ended: {self.words()}"
        raise AssertionError(f"no answer within {timeout_secs} s: {self.words()}")

    def agents(self) -> int:
        """Return how many agents it lists."""
        return len(self.ask(ListAgentsRequest(request_id="list")).agents)  # type: ignore[attr-defined]

    def words(self) -> str:
        """Return what it has said on stderr, and its keeper in its log."""
        logs = [self.log, *sorted((self.state / "run").glob("*.log"))]
        return "\n".join(path.read_text(errors="replace") for path in logs if path.exists())

    # Its keeper

    def keeper_pid(self) -> int | None:
        """Return the process that listens on the keeper's socket; ``None`` if none does."""
        for path in (self.state / "run").glob("keeper*.sock"):
            with socket.socket(socket.AF_UNIX) as asking, contextlib.suppress(OSError):
                asking.connect(str(path))
                option = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                return int(struct.unpack("3i", option)[0])
        return None

    def kill_keeper(self) -> int:
        """SIGKILL its keeper; return its process id."""
        pid = self.keeper_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    def marked_processes(self) -> dict[int, str]:
        """Return the agents among this process's descendants, and what they have started."""
        found = {}
        for pid, words in descendants().items():
            with contextlib.suppress(OSError):
                if _MARKER in Path(f"/proc/{pid}/environ").read_bytes():
                    found[pid] = words
        return found

    def socket_files(self) -> list[str]:
        """Return the socket files in its folders."""
        places = (self.folder, self.state, self.state / "run")
        return [str(path) for place in places for path in place.glob("*") if path.is_socket()]


@contextmanager
def restartable_server(*, settings: str = "", started: bool = True) -> Iterator[RestartableServer]:
    """Yield a server that has been started; at the end see to it that all of it is gone.

    A test that fails may leave it in any state: then its processes are killed. One that does
    not must have nothing left behind by an ordinary end, and nothing said of an exception.
    """
    with tempfile.TemporaryDirectory(prefix="dfast-") as folder:
        server = RestartableServer(Path(folder), settings=settings)
        try:
            if started:
                server.start()
            yield server
            if not server.runs:
                server.start()
            assert server.stop() == 0, server.words()
            wait_until_gone(server)
            assert "Traceback" not in server.words(), server.words()
        except BaseException:
            print(server.words(), file=sys.stderr)
            sweep(server)
            raise


def wait_until_gone(server: RestartableServer) -> None:
    """Wait until the keeper and all agents are gone; what is still there is an assertion."""
    deadline = time.monotonic() + _GONE_SECS
    while True:
        left = [f"keeper {pid}" for pid in [server.keeper_pid()] if pid is not None]
        left += [f"{pid} {words}" for pid, words in server.marked_processes().items()]
        left += server.socket_files()
        if not left:
            return
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.01)


def sweep(server: RestartableServer) -> None:
    """Kill all that is left, for tests that have failed."""
    if server.process is not None:
        server.process.kill()
        server.process.wait()
    if (keeper := server.keeper_pid()) is not None:
        os.kill(keeper, signal.SIGKILL)
    for pid in server.marked_processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
