"""The directory with what a server keeps: one server at a time, readable by its user only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import stat
import tempfile
import uuid
from collections.abc import Collection
from pathlib import Path
from uuid import UUID

from ..config_checks import is_server_name
from ..errors import UsageError
from .locks import lock_file

__all__ = ["JOURNAL_NAME", "StateDir", "runtime_directory"]

JOURNAL_NAME = "journal.sqlite"

# The keeper's socket goes into the runtime directory; its name and sun_path's limit.
_RUNTIME_NAME_BYTES = len("/keeper.sock")
_MAX_SOCKET_PATH_BYTES = 103  # on macOS; 107 on Linux
_LONGEST_NAME_FILE = 2048
_BOOT_NAME = "boot_id"
_BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")


class StateDir:
    """A state directory, locked for this server until it is closed.

    Makes ``path`` with mode 0700. Raises ``UsageError`` if another server holds the directory,
    or it cannot be made or is another user's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.agents = path / "agents"
        self._lock: int | None = None
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_uid != os.geteuid():
                raise UsageError(f"the state directory {path} belongs to another user")
            path.chmod(0o700)
            self._lock = _locked(path)
            _make_private(self.agents)
            self.runtime = runtime_directory(path)
            _make_private(self.runtime)
        except OSError as error:
            self.close()
            raise UsageError(
                f"cannot use the state directory {path}: {error.strerror or error}"
            ) from None
        except BaseException:
            self.close()
            raise

    def agent_directory(self, agent_id: UUID) -> Path:
        """Return the directory of one agent's output."""
        return self.agents / str(agent_id)

    def remove_agent(self, agent_id: UUID) -> None:
        """Remove an agent's output; blocks on the disk."""
        shutil.rmtree(self.agent_directory(agent_id), ignore_errors=True)

    def remove_unknown(self, known: Collection[UUID]) -> None:
        """Remove the output of agents that are not among the ``known``; blocks on the disk.

        That is directories that are named by an id: nothing else there is ours.
        """
        for entry in list(os.scandir(self.agents)):
            with contextlib.suppress(ValueError):
                if UUID(entry.name) not in known and entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)

    def remove_runtime(self) -> None:
        """Remove the runtime directory if it is not in the state directory: the keeper is gone."""
        if self.runtime.parent != self.path:
            shutil.rmtree(self.runtime, ignore_errors=True)

    def server_id(self) -> str:
        """Return the name this directory's server goes by, made up once: host name and a number."""
        file = self.path / "server_id"
        known = (_read_private(file) or "").strip()
        if is_server_name(known):
            return known
        made = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        _write_private(file, made)
        return made

    def machine_was_restarted(self) -> bool:
        """Tell whether the machine was started anew since :meth:`note_boot`; False if unknown."""
        noted = _read_private(self.path / _BOOT_NAME)
        return bool(noted and _boot_id() and noted.strip() != _boot_id())

    def note_boot(self) -> None:
        """Note which start of the machine the process ids and start times here belong to."""
        if _boot_id() and (_read_private(self.path / _BOOT_NAME) or "").strip() != _boot_id():
            _write_private(self.path / _BOOT_NAME, _boot_id())

    def close(self) -> None:
        """Release the lock; twice is fine."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def runtime_directory(path: Path) -> Path:
    """Return where the keeper of the state directory ``path`` has its socket; makes nothing.

    It is the same for every server of that directory.
    """
    runtime = path / "run"
    if not _has_room(runtime):
        name = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=8).hexdigest()
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        runtime = base / f"descartes-fast-{os.geteuid()}-{name}"
        if not _has_room(runtime):
            runtime = Path("/tmp") / runtime.name
    return runtime


def _has_room(runtime: Path) -> bool:
    return len(os.fsencode(runtime)) + _RUNTIME_NAME_BYTES <= _MAX_SOCKET_PATH_BYTES


def _locked(path: Path) -> int:
    try:
        return lock_file(path / "lock")
    except BlockingIOError:
        raise UsageError(
            f"the state directory {path} is in use by another server; give this one its own"
        ) from None


def _make_private(directory: Path) -> None:
    """Make a directory that only its user can read, or see to it that it is one.

    What is there may have been put there by others while the directory above was open to them.
    """
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise UsageError(f"{directory} is not a directory of this user")
    directory.chmod(0o700)


def _read_private(file: Path) -> str | None:
    """Return a file's text; ``None`` if it is not there, is a link, or is no text of ours."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                return stream.read(_LONGEST_NAME_FILE).decode()
    except (OSError, UnicodeDecodeError):
        pass
    return None


def _write_private(file: Path, text: str) -> None:
    """Write a line to a file that is made anew; a link that is there is not followed."""
    with contextlib.suppress(FileNotFoundError):
        file.unlink()
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text + "\n")


def _boot_id() -> str:
    """Return what tells this start of the machine from others; empty where nothing does."""
    try:
        return _BOOT_ID_PATH.read_text().strip()
    except OSError:
        return ""
