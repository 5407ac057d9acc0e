"""The keeper's process and the connection to it, as the server sees them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ..errors import CommunicationError, UsageError

__all__ = ["PYTHON_OPTIONS", "KeeperProcess", "KeeperWire", "start_keeper"]

PYTHON_OPTIONS = ("-I", "-S", "-X", "utf8")
"""Nothing from the environment, no site-packages: the keeper needs the standard library only."""

_PROGRAM = Path(__file__).parent / "keeper" / "__main__.py"
_SOCKET_NAME = "keeper-{}.sock"
_LOG_NAME = "keeper.log"
_MAX_SOCKET_PATH_BYTES = 103  # sun_path on macOS; 107 on Linux
_READ_BYTES = 256 * 1024
_UNSENT_BYTES = 1024 * 1024
_START_SECS = 15.0
_REAP_SECS = 5.0


def start_keeper(
    runtime_dir: Path, instance: str, agent_nofile: int | None = None
) -> tuple[KeeperProcess, socket.socket]:
    """Start a keeper, wait until it listens, and connect. Blocks: call it in a thread.

    Its socket and its log are in ``runtime_dir``, which is made with mode 0700. Raises
    ``UsageError`` if the directory's path is too long for a socket or the log cannot be opened
    (a symbolic link is not followed), and ``CommunicationError`` if the keeper does not start.
    """
    path = runtime_dir / _SOCKET_NAME.format(instance[:8])
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH_BYTES:
        raise UsageError(f"the path of the keeper's socket is too long: {path}")
    runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_path = runtime_dir / _LOG_NAME
    log = _opened_log(log_path)
    command = [sys.executable, *PYTHON_OPTIONS, str(_PROGRAM)]
    command += ["--socket", str(path), "--instance", instance, "--on-disconnect", "end"]
    if agent_nofile is not None:
        command += ["--agent-nofile", str(agent_nofile)]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            # Ctrl-C in a terminal goes to the server's group; the keeper ends when it is told.
            start_new_session=True,
        )
    finally:
        os.close(log)
    assert process.stdout is not None
    keeper = KeeperProcess(process, path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with process.stdout as stdout:
            readable, _, _ = select.select([stdout], [], [], _START_SECS)
            if not readable or stdout.readline() != b"ready\n":
                raise OSError("it says nothing")
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        keeper.kill()
        keeper.reap()
        raise CommunicationError(f"the keeper did not start ({error}); see {log_path}") from None
    return keeper, connection


def _opened_log(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise UsageError(f"cannot open the keeper's log {path}: {error.strerror}") from None


class KeeperProcess:
    """A keeper's process and its socket's file, which a killed one leaves behind."""

    def __init__(self, process: subprocess.Popen[bytes], socket_path: Path) -> None:
        self._process = process
        self._socket_path = socket_path

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """Kill it; :meth:`reap` must follow."""
        self._process.kill()

    def reap(self) -> None:
        """Wait for its end; one that does not end is killed. Blocks."""
        try:
            self._process.wait(_REAP_SECS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            # One that hangs in the kernel dies when it leaves it: nobody can do more.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_REAP_SECS)
        self._socket_path.unlink(missing_ok=True)


class KeeperWire:
    """The connection's bytes. No transport: under uvloop one costs the loop a descriptor."""

    def __init__(
        self,
        connection: socket.socket,
        on_data: Callable[[bytes], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._on_data = on_data
        self._on_lost = on_lost
        self._unsent = bytearray()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._closed = False
        connection.setblocking(False)
        self._loop.add_reader(connection.fileno(), self._read)

    def write(self, data: bytes) -> None:
        """Send now what the socket takes, and the rest when it can."""
        if self._closed:
            return
        self._unsent += data
        if len(self._unsent) == len(data):
            self._flush()

    async def drain(self) -> None:
        """Wait until the keeper has taken most of what was written."""
        await self._may_write.wait()

    def close(self) -> None:
        """Close the socket. Twice is fine."""
        if not self._closed:
            self._closed = True
            self._may_write.set()
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(f"the connection to the keeper broke: {error}")
            return
        if data:
            self._on_data(data)
        else:
            self._lose("the keeper is gone")

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._lose(f"the connection to the keeper broke: {error}")
            return
        if self._unsent:
            self._loop.add_writer(self._socket.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._socket.fileno())
        if len(self._unsent) > _UNSENT_BYTES:
            self._may_write.clear()
        else:
            self._may_write.set()

    def _lose(self, reason: str) -> None:
        self.close()
        self._on_lost(reason)
