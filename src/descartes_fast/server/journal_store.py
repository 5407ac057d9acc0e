"""The journal on the disk, blocking: what is read at the start, and groups of changes."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any
from uuid import UUID

import msgpack

from .journal_records import AgentRecord, SavedReply
from .journal_schema import broken, open_database

__all__ = ["Changes", "JournalStore"]

_FORGET_AT_ONCE = 256  # replies: removing a range costs about as much as adding one of them

_COLUMNS = tuple(entry.name for entry in fields(AgentRecord))
_PLAIN = tuple(name for name in _COLUMNS if name not in ("id", "metadata"))
_plain_values = attrgetter(*_PLAIN)
_FLAGS = ("pause_noticed", "stop_asked")

_SAVE_AGENT = (
    f"REPLACE INTO agents (id, metadata, {', '.join(_PLAIN)}) "
    f"VALUES (?, ?, {', '.join('?' * len(_PLAIN))})"
)
_SAVE_REPLY = "REPLACE INTO replies (number, memory, key, saved_at_ns, reply) VALUES (?,?,?,?,?)"
_FORGET = "DELETE FROM replies WHERE memory=? AND number<? AND reply IS NOT NULL"


class Changes:
    """What was recorded since the last commit, each thing in its last state."""

    __slots__ = ("agents", "cursors", "forgotten", "replies", "withdrawn")

    def __init__(self) -> None:
        self.agents: dict[UUID, AgentRecord | None] = {}
        """By id; ``None`` for one that is removed."""
        self.cursors: dict[tuple[UUID, str], int] = {}
        """Read cursors of agents whose record is older than that."""
        self.replies: dict[int, SavedReply] = {}
        self.withdrawn: set[tuple[str, int]] = set()
        """Memory and number of what was begun and is no longer so."""
        self.forgotten: dict[str, int] = {}
        """By memory: the number before which replies are not remembered any more."""

    def __bool__(self) -> bool:
        return bool(self.replies or self.agents or self.cursors or self.withdrawn or self.forgotten)

    def save_agent(self, agent_id: UUID, record: AgentRecord | None) -> None:
        self.agents[agent_id] = record
        if self.cursors:  # the record has them
            self.cursors.pop((agent_id, "stdout"), None)
            self.cursors.pop((agent_id, "stderr"), None)

    def withdraw(self, memory: str, number: int) -> None:
        if self.replies.pop(number, None) is None:
            self.withdrawn.add((memory, number))

    def forget(self, memory: str, before: int) -> None:
        self.forgotten[memory] = before

    def overlay(self, later: Changes) -> None:
        """Add what was recorded after these changes, which could not be written."""
        for agent_id, record in later.agents.items():
            self.save_agent(agent_id, record)
        self.cursors.update(later.cursors)
        self.replies.update(later.replies)
        for memory, number in later.withdrawn:
            self.withdraw(memory, number)
        self.forgotten.update(later.forgotten)
        for number, saved in list(self.replies.items()):
            if saved.reply is not None and number < self.forgotten.get(saved.memory, 0):
                del self.replies[number]


class JournalStore:
    """The database of a journal. Raises ``UsageError`` like :func:`open_database`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_database(path)
        self._removed: dict[str, int] = {}
        try:
            meta = dict(self._connection.execute("SELECT name, value FROM meta"))
            self.journal_id: str = meta["journal_id"]
            self.instance: str = meta["instance"]
            self.agents = self._load_agents()
            self.replies = self._load_replies()
        except (sqlite3.Error, KeyError, ValueError, TypeError) as error:
            self._connection.close()
            raise broken(path, sqlite3.DatabaseError(str(error))) from None

    def _load_agents(self) -> list[AgentRecord]:
        names = ", ".join(_COLUMNS)
        found = []
        for row in self._connection.execute(f"SELECT {names} FROM agents ORDER BY started_at_ns"):
            values: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
            values["id"] = UUID(bytes=values["id"])
            values["metadata"] = msgpack.unpackb(values["metadata"])
            values.update({name: bool(values[name]) for name in _FLAGS})
            found.append(AgentRecord(**values))
        return found

    def _load_replies(self) -> list[SavedReply]:
        rows = self._connection.execute(
            "SELECT number, memory, key, saved_at_ns, reply FROM replies ORDER BY number"
        )
        return [SavedReply(*row) for row in rows]

    def write(self, changes: Changes) -> None:
        """Commit a group: all of it, or nothing and ``sqlite3.Error``."""
        run = self._connection
        removals = self._removals(changes)
        run.execute("BEGIN IMMEDIATE")
        try:
            if changes.agents:
                self._write_agents(changes)
            for (agent_id, stream), offset in changes.cursors.items():
                run.execute(
                    f"UPDATE agents SET {stream}_cursor=? WHERE id=?", (offset, agent_id.bytes)
                )
            if changes.replies:
                run.executemany(_SAVE_REPLY, changes.replies.values())
            if changes.withdrawn:
                run.executemany(
                    "DELETE FROM replies WHERE memory=? AND number=?", changes.withdrawn
                )
            if removals:
                run.executemany(_FORGET, removals.items())
            run.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                run.execute("ROLLBACK")
            raise
        self._removed.update(removals)

    def _write_agents(self, changes: Changes) -> None:
        run = self._connection
        run.executemany(
            _SAVE_AGENT,
            [
                (record.id.bytes, msgpack.packb(record.metadata), *_plain_values(record))
                for record in changes.agents.values()
                if record is not None
            ],
        )
        removed = [(key.bytes,) for key, record in changes.agents.items() if record is None]
        if removed:
            run.executemany("DELETE FROM agents WHERE id=?", removed)

    def _removals(self, changes: Changes) -> dict[str, int]:
        """Return what is worth removing now: not one reply for each that comes."""
        return {
            memory: before
            for memory, before in changes.forgotten.items()
            if before - self._removed.get(memory, 0) >= _FORGET_AT_ONCE
        }

    def close(self) -> None:
        """Close the database; twice is fine."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
