"""The journal on the disk, blocking: what is read at the start, and groups of changes."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import msgpack  # type: ignore[import-untyped]

from .journal_changes import Changes
from .journal_records import AgentRecord, SavedReply
from .journal_schema import broken, configure, open_database

__all__ = ["JournalStore"]

_COLUMNS = AgentRecord._fields
_FLAGS = ("pause_noticed", "pause_begun")

_SAVE_AGENT = (
    f"REPLACE INTO agents (row, {', '.join(_COLUMNS)}) VALUES (?, {', '.join('?' * len(_COLUMNS))})"
)
_REMOVE_AGENT = "DELETE FROM agents WHERE row=?"
_SAVE_CURSOR = {
    stream: f"UPDATE agents SET {stream}_cursor=? WHERE row=?" for stream in ("stdout", "stderr")
}
_SAVE_REPLIES = "INSERT INTO replies VALUES (?, ?, ?, ?)"
_FORGET = "DELETE FROM replies WHERE memory=? AND last_number<?"
_BEGIN = "REPLACE INTO begun VALUES (?, ?, ?, ?)"
_WITHDRAW = "DELETE FROM begun WHERE number=?"
_COUNT_LOG = "INSERT INTO meta VALUES ('logs', 1) ON CONFLICT (name) DO UPDATE SET value=value+1"

Statement = tuple[str, Iterable[tuple[Any, ...]]]


class JournalStore:
    """The database of a journal. Raises ``UsageError`` like :func:`open_database`."""

    def __init__(self, path: Path, reply_bytes: int | None = None) -> None:
        self._connection = open_database(path)
        self._path = path
        self._rows: dict[int, int] = {}
        """Which row is an agent's, by the number of its id."""
        self._last_row = 0
        # Beside the other: a checkpoint in a thread holds up no commit. It waits for no reader, who
        # may take for ever: commits that are held for it would wait as long.
        self._checkpoints, self._reader = (
            sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            for _ in range(2)
        )
        configure(self._checkpoints)
        try:
            meta = dict(self._connection.execute("SELECT name, value FROM meta"))
            self.journal_id: str = meta["journal_id"]
            self.instance: str = meta["instance"]
            self.agents = self._load_agents()
            self.replies = self._load_replies(reply_bytes)
            self._file = _identity(path)
        except (sqlite3.Error, KeyError, ValueError, TypeError) as error:
            self.close()
            raise broken(path, error) from None
        with contextlib.suppress(sqlite3.Error):  # the first commit tells
            self.begin_log()

    def _load_agents(self) -> list[AgentRecord]:
        names = ", ".join(_COLUMNS)
        found = []
        rows = self._connection.execute(f"SELECT row, {names} FROM agents ORDER BY started_at_ns")
        for row, *facts in rows:
            values: dict[str, Any] = dict(zip(_COLUMNS, facts, strict=True))
            values["id"] = UUID(bytes=values["id"])
            self._rows[values["id"].int] = row
            # The newest need not be the last one: clocks are set.
            self._last_row = max(self._last_row, row)
            values["metadata"] = msgpack.unpackb(values["metadata"])
            values.update({name: bool(values[name]) for name in _FLAGS})
            found.append(AgentRecord(**values))
        return found

    def _load_replies(self, most_bytes: int | None) -> list[SavedReply]:
        """Return what was begun, and the newest replies; older ones are forgotten unread."""
        run = self._connection.execute
        found = [
            SavedReply(number, memory, key, begun_at_ns, None)
            for number, memory, key, begun_at_ns in run(
                "SELECT number, memory, key, begun_at_ns FROM begun"
            )
        ]
        taken: Counter[str] = Counter()
        rows = run(
            "SELECT last_number, memory, length(data) FROM replies ORDER BY last_number DESC"
        )
        for last_number, memory, size in rows.fetchall():
            taken[memory] += size
            if most_bytes is not None and taken[memory] > most_bytes:
                with contextlib.suppress(sqlite3.Error):  # of a disk that is full just now
                    run("DELETE FROM replies WHERE last_number=?", (last_number,))
                continue
            saved_at_ns, data = run(
                "SELECT saved_at_ns, data FROM replies WHERE last_number=?", (last_number,)
            ).fetchone()
            found += [
                SavedReply(number, memory, key, saved_at_ns, reply)
                for number, key, reply in msgpack.unpackb(data)
            ]
        return sorted(found)

    def write(self, changes: Changes) -> None:
        """Commit a group: all of it, or nothing and ``sqlite3.Error``."""
        statements = list(self._statements(changes))
        run = self._connection
        match statements:
            case []:
                return
            case [(sql, [row])]:  # a transaction of its own
                run.execute(sql, row)
            case _:
                run.execute("BEGIN IMMEDIATE")
                try:
                    for sql, rows in statements:
                        run.executemany(sql, rows)
                    run.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        run.execute("ROLLBACK")
                    raise
        for agent, record in changes.agents.items():
            if record is None:
                self._rows.pop(agent, None)

    def _statements(self, changes: Changes) -> Iterable[Statement]:
        for memory, replies in changes.replies.items():
            data = msgpack.packb(replies)
            yield _SAVE_REPLIES, [(replies[-1][0], memory, time.time_ns(), data)]
        if changes.agents:
            records = [record for record in changes.agents.values() if record is not None]
            if records:
                yield _SAVE_AGENT, [_values(self._row_for(record), record) for record in records]
            if len(records) < len(changes.agents):
                gone = [agent for agent, record in changes.agents.items() if record is None]
                yield _REMOVE_AGENT, [(self._rows.get(agent),) for agent in gone]
        for (agent_id, stream), offset in changes.cursors.items():
            yield _SAVE_CURSOR[stream], [(offset, self._rows.get(agent_id.int))]
        if changes.begun:
            now_ns = time.time_ns()
            yield _BEGIN, [(number, *which, now_ns) for number, which in changes.begun.items()]
        if changes.withdrawn:
            yield _WITHDRAW, [(number,) for number in changes.withdrawn]
        if changes.forgotten:
            yield _FORGET, list(changes.forgotten.items())

    def _row_for(self, record: AgentRecord) -> int:
        """Return which row is an agent's; it has one from now on."""
        row = self._rows.get(record.id.int)
        if row is None:
            row = self._rows[record.id.int] = self._last_row = self._last_row + 1
        return row

    def forget_replies(self, before_ns: int) -> None:
        """Remove the replies that were saved before then, and what they and others left behind."""
        self._connection.execute("DELETE FROM replies WHERE saved_at_ns<?", (before_ns,))
        self._connection.execute("VACUUM")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def checkpoint(self) -> None:
        """Bring what was committed into the database proper; in any thread, beside commits.

        They go on in the same log: as long as somebody reads in it nobody begins it anew.
        """
        self._stop_reading()  # if the last one failed
        self._reader.execute("BEGIN")
        self._reader.execute("SELECT value FROM meta").fetchone()
        self._checkpoints.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def begin_log(self) -> None:
        """Begin the log anew, unless somebody reads in it; in any thread, no commit beside it.

        The first write to a log waits for the disk: that is done here, so that no commit has to.
        """
        self._stop_reading()
        self._checkpoints.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        self._checkpoints.execute(_COUNT_LOG)  # SQLite writes only what differs

    def _stop_reading(self) -> None:
        if self._reader.in_transaction:
            self._reader.execute("ROLLBACK")

    def missing(self) -> str | None:
        """Return what there is to say if the file is not this one any more."""
        if _identity(self._path) == self._file:
            return None
        return f"{self._path} was removed or replaced: put it back, or start the server again"

    def close(self) -> None:
        """Close the database; twice is fine."""
        with contextlib.suppress(sqlite3.Error):
            self._reader.close()
            self._checkpoints.close()
            self._connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _values(row: int, record: AgentRecord) -> tuple[Any, ...]:
    if record.message is not None:  # may quote a file name that is not UTF-8
        words = record.message.encode("utf-8", "backslashreplace").decode()
        record = record._replace(message=words)
    agent_id, metadata, *plain = record
    return (row, agent_id.bytes, msgpack.packb(metadata), *plain)
