"""The directory with what a server keeps: one server at a time, readable by its user only."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import socket
import uuid
from collections import deque
from collections.abc import Collection, Iterable
from pathlib import Path
from uuid import UUID

from .._core.ids import id_text
from ..config_checks import is_server_name
from ..errors import UsageError
from .locks import lock_file
from .private_files import make_private, read_private, write_private
from .runtime_dir import identity_of, remove_runtime, runtime_directory, settled_runtime

__all__ = ["JOURNAL_NAME", "StateDir", "runtime_directory"]

JOURNAL_NAME = "journal.sqlite"

_SPARE_PREFIX = "spare-"
_MOST_SPARES = 256

_BOOT_NAME = "boot_id"
_PLACE_NAME = "place"
_BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")


class StateDir:
    """A state directory, locked for this server until it is closed.

    Makes ``path`` with mode 0700. Raises ``UsageError`` if another server holds the directory,
    or it cannot be made or is another user's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.agents = path / "agents"
        self._agents_path = str(self.agents)
        self._lock: int | None = None
        self._spares: deque[str] = deque()
        self._spare_numbers = itertools.count()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_uid != os.geteuid():
                raise UsageError(f"the state directory {path} belongs to another user")
            path.chmod(0o700)
            self._lock = _locked(path)
            make_private(self.agents)
            self.runtime = settled_runtime(path)
        except OSError as error:
            self.close()
            raise UsageError(
                f"cannot use the state directory {path}: {error.strerror or error}"
            ) from None
        except BaseException:
            self.close()
            raise

    def agent_directory(self, agent_id: UUID) -> str:
        """Return the directory of one agent's output."""
        return f"{self._agents_path}/{id_text(agent_id)}"

    def remove_agents(self, agent_ids: Iterable[UUID]) -> None:
        """Remove the output of agents; blocks on the disk.

        Empty directories are kept for other agents, up to 256: a new one costs a file system that
        is deleting others a tenth of a millisecond, another name for one nearly nothing.
        """
        for agent_id in agent_ids:
            directory = self.agent_directory(agent_id)
            try:
                if len(self._spares) < _MOST_SPARES:
                    # Nobody finds it by its old name any more: what is empty then stays so.
                    spare = f"{self._agents_path}/{_SPARE_PREFIX}{next(self._spare_numbers)}"
                    os.rename(directory, spare)
                    directory = spare
                    if not os.listdir(directory):
                        self._spares.append(directory)
                        continue
                else:
                    os.rmdir(directory)
                    continue
            except FileNotFoundError:
                continue
            except OSError:
                pass
            shutil.rmtree(directory, ignore_errors=True)

    def spare_directory(self) -> str | None:
        """Return an empty directory for the next agent, if there is one, and keep it no longer."""
        return self._spares.popleft() if self._spares else None

    def remove_unknown(self, known: Collection[UUID]) -> None:
        """Remove the output of agents that are not among the ``known``; blocks on the disk.

        That is directories that are named by an id, or spare ones: nothing else there is ours.
        """
        for entry in list(os.scandir(self.agents)):
            if not entry.is_dir(follow_symlinks=False) or _is_of(entry.name, known):
                continue
            shutil.rmtree(entry.path, ignore_errors=True)

    def remove_runtime(self) -> None:
        """Remove the runtime directory if it is not in the state directory and nothing is in it."""
        remove_runtime(self.path, self.runtime)

    def server_id(self) -> str:
        """Return the name this directory's server goes by, made up once: host name and a number."""
        file = self.path / "server_id"
        known = read_private(file)
        if is_server_name(known):
            return known
        made = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        write_private(file, made)
        return made

    def instance(self, journal_instance: str) -> str:
        """Return what the agents of this directory are marked with: those of a copy otherwise."""
        words = f"{journal_instance} {identity_of(self.path)}"
        return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()

    def why_agents_are_gone(self) -> str | None:
        """Return why nothing that is noted here can live, since :meth:`note_boot`, if so.

        Process ids and their start times are of one start of the machine; and those in a copy of
        a state directory are the original's agents.
        """
        boot, place = read_private(self.path / _BOOT_NAME), read_private(self.path / _PLACE_NAME)
        if boot and _boot_id() and boot != _boot_id():
            return "the machine was restarted while it ran: nobody saw how it ended"
        if place and place != identity_of(self.path):
            return "it is not an agent of this state directory, which is a copy of another"
        return None

    def note_boot(self) -> None:
        """Note where and when the process ids here are of; on a full disk it is left for later."""
        for name, text in ((_BOOT_NAME, _boot_id()), (_PLACE_NAME, identity_of(self.path))):
            file = self.path / name
            if text and read_private(file) != text:
                with contextlib.suppress(OSError):
                    write_private(file, text)

    def close(self) -> None:
        """Release the lock; twice is fine."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _is_of(name: str, known: Collection[UUID]) -> bool:
    """Whether a directory with this name is one of the ``known`` agents', or nobody's of ours."""
    if name.startswith(_SPARE_PREFIX):
        return False
    try:
        return UUID(name) in known
    except ValueError:
        return True


def _locked(path: Path) -> int:
    try:
        return lock_file(path / "lock")
    except BlockingIOError:
        raise UsageError(
            f"the state directory {path} is in use by another server; give this one its own"
        ) from None


def _boot_id() -> str:
    """Return what tells this start of the machine from others; empty where nothing does."""
    try:
        return _BOOT_ID_PATH.read_text().strip()
    except OSError:
        return ""
