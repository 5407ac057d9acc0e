"""What a state directory holds, read from outside: beside a running server, or without one."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgpack  # type: ignore[import-untyped]

from .._core import AgentStatus
from ..errors import UsageError
from .journal_changes import Changes
from .journal_schema import STEPS, broken
from .journal_store import JournalStore
from .keeper.proc import start_ticks
from .keeper_process import LOCK_NAME
from .lock_holders import UNKNOWN_PROCESS, lock_holder
from .locks import lock_file
from .state_dir import JOURNAL_NAME, runtime_directory

__all__ = [
    "AgentView",
    "StateView",
    "journal_instance",
    "prune_state",
    "read_state",
    "refuse_beside_server",
]

_OLDEST_VERSION = 1  # whose agents and replies have all that is read here
_AGENT_COLUMNS = (
    "id, name, model_backend, task, status, pid, start_ticks, started_at_ns, ended_at_ns, "
    "exit_code, signal, message, stdout_start, stdout_end, stderr_start, stderr_end"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """An agent as the journal has it; ``alive`` if it has not ended and its process is there."""

    id: UUID
    name: str
    model_backend: str
    task: str
    status: AgentStatus
    pid: int | None
    alive: bool
    started_at_ns: int
    ended_at_ns: int | None
    exit_code: int | None
    signal: int | None
    message: str | None
    stdout_bytes: int
    stderr_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StateView:
    """What a state directory holds, and who works with it.

    ``server_pid`` and ``keeper_pid`` are ``None`` where none runs, and 0 where the system does
    not tell which process it is.
    """

    path: Path
    server_pid: int | None
    keeper_pid: int | None
    version: int
    agents: list[AgentView]
    replies: int
    reply_bytes: int
    journal_bytes: int
    output_bytes: int


def read_state(path: Path) -> StateView:
    """Return what a state directory holds; nothing in it is changed.

    Raises ``UsageError`` if there is no journal, or one that this version cannot read.
    """
    journal = _journal_in(path)
    with _reading(journal) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not _OLDEST_VERSION <= version <= len(STEPS):
            raise UsageError(
                f"the journal {journal} is of version {version}, and this program reads versions "
                f"{_OLDEST_VERSION} to {len(STEPS)}; a server brings an older one up to date when "
                "it starts"
            )
        rows = connection.execute(f"SELECT {_AGENT_COLUMNS} FROM agents ORDER BY started_at_ns")
        agents = [_agent(row) for row in rows]
        packed = [data for (data,) in connection.execute("SELECT data FROM replies")]
    return StateView(
        path=path,
        server_pid=lock_holder(path / "lock"),
        keeper_pid=lock_holder(runtime_directory(path) / LOCK_NAME),
        version=version,
        agents=agents,
        replies=sum(len(msgpack.unpackb(data)) for data in packed),
        reply_bytes=sum(map(len, packed)),
        journal_bytes=sum(_disk_bytes(file) for file in path.glob(JOURNAL_NAME + "*")),
        output_bytes=_tree_bytes(path / "agents"),
    )


def journal_instance(path: Path) -> str | None:
    """Return what the agents in a directory's journal are marked with; ``None`` without one.

    Raises ``UsageError`` if the journal cannot be read.
    """
    journal = path / JOURNAL_NAME
    if not journal.is_file():
        return None
    with _reading(journal) as connection:
        row = connection.execute("SELECT value FROM meta WHERE name='instance'").fetchone()
        return None if row is None else str(row[0])


def prune_state(path: Path, older_than_secs: float, replay_secs: float) -> list[UUID]:
    """Forget the agents that ended that long ago, and their output; return their ids.

    Replies older than ``replay_secs`` are forgotten too: that to a spawn tells the agent's task.
    Raises ``UsageError`` while a server runs (it does this by itself), or if there is no journal.
    """
    journal = _journal_in(path)
    lock = _locked(path)
    try:
        ended_before = time.time_ns() - int(older_than_secs * 1e9)
        gone = [
            agent.id
            for agent in read_state(path).agents
            if agent.status.is_terminal and (agent.ended_at_ns or 0) <= ended_before
        ]
        store = JournalStore(journal)
        try:
            changes = Changes()
            for agent_id in gone:
                changes.save_agent(agent_id, None)
            store.write(changes)
            store.forget_replies(time.time_ns() - int(replay_secs * 1e9))
        except sqlite3.Error as error:
            raise broken(journal, error) from None
        finally:
            store.close()
        for agent_id in gone:
            shutil.rmtree(path / "agents" / str(agent_id), ignore_errors=True)
        return gone
    finally:
        os.close(lock)


def refuse_beside_server(path: Path) -> None:
    """Raise ``UsageError`` if a server works with a state directory."""
    os.close(_locked(path))


def _locked(path: Path) -> int:
    try:
        return lock_file(path / "lock")
    except BlockingIOError:
        holder = lock_holder(path / "lock") or UNKNOWN_PROCESS
        who = f" (process {holder})" if holder else ""
        raise UsageError(
            f"a server{who} works with {path}: stop it first, or leave this to it; it drops ended "
            "agents by itself (its settings retain_agents, retain_secs)"
        ) from None


def _journal_in(path: Path) -> Path:
    journal = path / JOURNAL_NAME
    if not journal.is_file():
        raise UsageError(f"there is no journal in {path}")
    return journal


@contextmanager
def _reading(journal: Path) -> Iterator[sqlite3.Connection]:
    try:
        connection = sqlite3.connect(f"file:{quote(os.fspath(journal))}?mode=ro", uri=True)
        with contextlib.closing(connection):
            connection.execute("BEGIN")  # one moment for all that is read
            yield connection
    except sqlite3.Error as error:
        raise broken(journal, error) from None


def _agent(row: tuple[Any, ...]) -> AgentView:
    names = [name.strip() for name in _AGENT_COLUMNS.split(",")]
    values = dict(zip(names, row, strict=True))
    status = AgentStatus(values["status"])
    pid, ticks = values["pid"], values["start_ticks"]
    return AgentView(
        id=UUID(bytes=values["id"]),
        name=values["name"],
        model_backend=values["model_backend"],
        task=values["task"],
        status=status,
        pid=pid,
        alive=not status.is_terminal and pid is not None and start_ticks(pid) == ticks,
        started_at_ns=values["started_at_ns"],
        ended_at_ns=values["ended_at_ns"],
        exit_code=values["exit_code"],
        signal=values["signal"],
        message=values["message"],
        stdout_bytes=values["stdout_end"] - values["stdout_start"],
        stderr_bytes=values["stderr_end"] - values["stderr_start"],
    )


def _tree_bytes(folder: Path) -> int:
    return sum(
        _disk_bytes(Path(where) / name) for where, _, names in os.walk(folder) for name in names
    )


def _disk_bytes(file: Path) -> int:
    """Return what a file takes on the disk: trimmed output has holes."""
    with contextlib.suppress(OSError):
        return file.lstat().st_blocks * 512
    return 0
