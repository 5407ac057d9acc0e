"""The keeper's process: found by its socket in the runtime directory, or started there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from ..errors import CommunicationError, UsageError
from .lock_holders import lock_holder
from .locks import lock_file
from .runtime_dir import ENDS_NAME, LOCK_NAME, MAX_SOCKET_PATH_BYTES, SOCKET_NAME

__all__ = [
    "ENDS_NAME",
    "LOCK_NAME",
    "PYTHON_OPTIONS",
    "KeeperPlace",
    "KeeperProcess",
    "build_digest",
]

PYTHON_OPTIONS = ("-I", "-S", "-X", "utf8")
"""Nothing from the environment, no site-packages: the keeper needs the standard library only."""

_LOG_NAME = "keeper.log"
_PROGRAM = Path(__file__).parent / "keeper" / "__main__.py"
_START_SECS = 15.0
_CONNECT_SECS = 10.0
_WAKE_SECS = 1.0
_REAP_SECS = 5.0
_TICK_SECS = 0.005
_UCRED = struct.Struct("3i")
_LOCAL_PEERPID = 0x002  # Darwin, <sys/un.h>

_left: list[subprocess.Popen[bytes]] = []
"""Keepers that this process has started and let go of, to be collected when they have ended."""


class KeeperPlace:
    """Where the keeper of a state directory is, or will be. Blocks: use it in a thread.

    Raises ``UsageError`` if the directory's path is too long for a socket.
    """

    def __init__(self, runtime_dir: Path, agent_nofile: int | None = None) -> None:
        self.runtime_dir = runtime_dir
        self.socket_path = runtime_dir / SOCKET_NAME
        self.log_path = runtime_dir / _LOG_NAME
        self.ends_path = runtime_dir / ENDS_NAME
        self.build = build_digest()
        self._agent_nofile = agent_nofile
        if len(os.fsencode(self.socket_path)) > MAX_SOCKET_PATH_BYTES:
            raise UsageError(f"the path of the keeper's socket is too long: {self.socket_path}")

    def find(self) -> tuple[KeeperProcess, socket.socket] | None:
        """Connect to the keeper that is there; ``None`` if there is none."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_CONNECT_SECS)
            self._connect(connection)
            return KeeperProcess(self, _peer_pid(connection)), connection
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
            connection.close()
            return None
        except OSError as error:
            connection.close()
            raise CommunicationError(f"{self.holder()} cannot be reached: {error}") from None

    def _connect(self, connection: socket.socket) -> None:
        """Connect; where others fill the queue (EAGAIN), try again until there is room."""
        now = time.monotonic()
        wake_at, give_up_at = now + _WAKE_SECS, now + _CONNECT_SECS
        while True:
            try:
                connection.connect(str(self.socket_path))
                return
            except BlockingIOError:
                now = time.monotonic()
                if now >= give_up_at:
                    raise
                if now >= wake_at:  # it may be stopped
                    wake_at = give_up_at
                    if pid := self._holder_pid():
                        _signal(pid, signal.SIGCONT)
                time.sleep(_TICK_SECS)

    def start(self, instance: str) -> tuple[KeeperProcess, socket.socket]:
        """Start a keeper, wait until it listens, and connect.

        Raises ``UsageError`` if its log cannot be opened (a symbolic link is not followed), and
        ``CommunicationError`` if it does not start.
        """
        self.runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = _opened_log(self.log_path)
        try:
            child = subprocess.Popen(
                self.command(instance),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                # Its own session: neither Ctrl-C in a terminal nor the end of the server's session
                # is meant for it.
                start_new_session=True,
            )
        finally:
            os.close(log)
        assert child.stdout is not None
        keeper = KeeperProcess(self, child.pid, child)
        try:
            with child.stdout as stdout:
                if not _readable(stdout.fileno(), _START_SECS) or stdout.readline() != b"ready\n":
                    raise OSError("it says nothing")
            found = self.find()
            if found is None:
                raise OSError("it does not listen")
        except (OSError, CommunicationError) as error:
            keeper.kill()
            keeper.reap()
            raise CommunicationError(
                f"the keeper did not start ({error}); see {self.log_path}"
            ) from None
        found[0].close()
        return keeper, found[1]

    def command(self, instance: str) -> list[str]:
        """Return the command that runs a keeper here."""
        command = [sys.executable, *PYTHON_OPTIONS, str(_PROGRAM)]
        command += ["--socket", str(self.socket_path), "--instance", instance]
        command += ["--build", self.build]
        if self._agent_nofile is not None:
            command += ["--agent-nofile", str(self._agent_nofile)]
        return command

    def wait_until_free(self, timeout_secs: float) -> bool:
        """Return when no keeper is here, as far as its lock says; False if one still is."""
        if not self.runtime_dir.exists():
            return True
        give_up_at = time.monotonic() + timeout_secs
        while True:
            try:
                os.close(lock_file(self.runtime_dir / LOCK_NAME))
            except BlockingIOError:
                if time.monotonic() >= give_up_at:
                    return False
                time.sleep(_TICK_SECS)
            else:
                return True

    def holder(self) -> str:
        """Name the process that holds the lock here, for words to people."""
        pid = self._holder_pid()
        return f"process {pid}" if pid else "a keeper"

    def _holder_pid(self) -> int | None:
        return lock_holder(self.runtime_dir / LOCK_NAME)

    def clear(self) -> None:
        """Remove the socket that a killed keeper has left."""
        if self.wait_until_free(0):
            self.socket_path.unlink(missing_ok=True)


class KeeperProcess:
    """A keeper's process, which may be this process's child or that of an earlier server."""

    def __init__(
        self, place: KeeperPlace, pid: int, child: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.pid = pid
        self._place = place
        self._child = child
        # While it is open the process id cannot come to mean another process unnoticed.
        self._pidfd = -1
        if child is None and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._pidfd = os.pidfd_open(pid)

    def kill(self) -> None:
        """Kill it; :meth:`reap` must follow."""
        self._signal(signal.SIGKILL)

    def wake(self) -> None:
        """Continue it if it is stopped."""
        self._signal(signal.SIGCONT)

    def _signal(self, signum: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            if self._child is not None:
                self._child.send_signal(signum)
            elif self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signum)
            elif not self._place.wait_until_free(0):
                _signal(self.pid, signum)

    def reap(self) -> None:
        """Wait for its end; one that does not end is killed. Blocks."""
        if not self._has_ended(_REAP_SECS):
            self.kill()
            # One that hangs in the kernel dies when it leaves it: nobody can do more.
            self._has_ended(_REAP_SECS)
        self.close()
        self._place.clear()

    def collect(self) -> None:
        """Let go of one that has ended, as another one holds its lock. Blocks for a moment."""
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_REAP_SECS)
        self.close()

    def close(self) -> None:
        """Let go of it; it runs on. Twice is fine."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._child is not None:
            _left.append(self._child)
            self._child = None
        _collect_ended()

    def _has_ended(self, timeout_secs: float) -> bool:
        if self._child is not None:
            try:
                self._child.wait(timeout_secs)
            except subprocess.TimeoutExpired:
                return False
            return True
        if self._pidfd >= 0:
            return _readable(self._pidfd, timeout_secs)
        return self._place.wait_until_free(timeout_secs)


def _signal(pid: int, signum: signal.Signals) -> None:
    """Signal a process, and never a group: 0 is a peer of another pid namespace."""
    if pid > 0:
        with contextlib.suppress(OSError):
            os.kill(pid, signum)


def _readable(descriptor: int, timeout_secs: float) -> bool:
    """Wait until a descriptor is readable; not by select(2), which takes none above 1023."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_secs * 1000))


def _collect_ended() -> None:
    _left[:] = [child for child in _left if child.poll() is None]


def build_digest() -> str:
    """Return what tells this keeper's program from another version's."""
    digest = hashlib.blake2b(digest_size=8)
    folder = Path(__file__).parent / "keeper"
    for path in sorted([*folder.glob("*.py"), *folder.glob("*.so")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _opened_log(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise UsageError(f"cannot open the keeper's log {path}: {error.strerror}") from None


def _peer_pid(connection: socket.socket) -> int:
    if sys.platform == "darwin":
        return connection.getsockopt(0, _LOCAL_PEERPID)
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(credentials)[0])
