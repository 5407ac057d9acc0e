"""The journal's database: its file, its tables, and the steps from each version to the next."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UsageError

__all__ = ["STEPS", "broken", "configure", "open_database"]

_BUSY_SECS = 0.1  # the journal is one server's; whoever else writes to it holds that server up
_LOG_BYTES = 32 * 1024 * 1024  # a log that was longer gives the rest back when it begins anew

# Not the fault of the file: with room, permission or patience it may be as good as ever.
_CIRCUMSTANCES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)

Step = Callable[[sqlite3.Connection], None]


def open_database(path: Path, steps: Sequence[Step] | None = None) -> sqlite3.Connection:
    """Return the database in ``path``, made or brought to the newest version.

    In WAL mode with ``synchronous=NORMAL``, transactions are begun and ended by hand, and nothing
    is checkpointed by itself. The file and what SQLite puts beside it are for their user only.
    Raises ``UsageError`` if it is of a newer version, broken, or not to be used; it is left as it
    is then.
    """
    steps = STEPS if steps is None else steps
    try:
        _make_private(path)
        connection = sqlite3.connect(
            path, timeout=_BUSY_SECS, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as error:
        raise UsageError(f"the journal {path} cannot be opened: {error}") from None
    try:
        _migrate(connection, path, steps)
        connection.execute("PRAGMA journal_mode=WAL")
        configure(connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise broken(path, error) from None
        raise
    return connection


def configure(connection: sqlite3.Connection) -> None:
    """Have a connection checkpoint only when told, and wait for the disk only then."""
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")


def broken(path: Path, error: Exception) -> UsageError:
    """Return the error for a journal that cannot be read, and what to do about it."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _CIRCUMSTANCES:
        return UsageError(
            f"the journal {path} cannot be used now: {error}. Nothing says that it is damaged: see "
            "to the disk (room, permissions, what else uses the file) and leave it where it is; "
            "without it the agents that run and the output of earlier ones would be lost"
        )
    return UsageError(
        f"the journal {path} cannot be read: {error}. Restore it, together with {path.name}-wal. "
        "If there is no copy, end the agents that still run (`descartes-fast state stop`), save "
        f"what is needed of {path.parent / 'agents'}, then move both files away: a server with a "
        "new journal knows neither earlier agents nor earlier requests"
    )


def _migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[Step]) -> None:
    """Take the steps that this database has not taken yet: all of them, or none."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise UsageError(
            f"the journal {path} is of a newer version ({version}; this one knows {len(steps)}): "
            "use the program that made it, or one that is newer"
        )
    if version == len(steps):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in steps[version:]:
            step(connection)
        connection.execute(f"PRAGMA user_version={len(steps)}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _make_private(path: Path) -> None:
    """Make the file with mode 0600, or see to it that what is there is one of this user."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise UsageError(f"the journal {path} is not a file of this user")
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


# Of these two steps, for ever: a later one says what it adds to the table.
_FACTS_OF_VERSION_1 = """
    name TEXT, model_backend TEXT, task TEXT, pause_policy TEXT, status TEXT, seq INTEGER,
    started_at_ns INTEGER, output_limit_bytes INTEGER, output_policy TEXT, metadata BLOB,
    config BLOB, request_key TEXT, stop_grace_secs REAL, pid INTEGER, start_ticks INTEGER,
    ended_at_ns INTEGER, exit_code INTEGER, signal INTEGER, message TEXT, paused_at_ns INTEGER,
    pause_mode TEXT, pause_noticed INTEGER, pause_begun INTEGER, stop_by_ns INTEGER,
    signals_asked TEXT, stdout_start INTEGER, stdout_end INTEGER, stderr_start INTEGER,
    stderr_end INTEGER, stdout_cursor INTEGER, stderr_cursor INTEGER, user_secs REAL,
    system_secs REAL, max_rss_bytes INTEGER
"""


def _first(connection: sqlite3.Connection) -> None:
    """Version 1: who the journal is, the agents, the replies, and what was begun."""
    connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?)",
        [("journal_id", secrets.token_hex(16)), ("instance", secrets.token_hex(8))],
    )
    connection.execute(f"CREATE TABLE agents (id BLOB PRIMARY KEY, {_FACTS_OF_VERSION_1})")
    # One row for the replies of a memory in one commit: MessagePack of [[number, key, reply], ...].
    connection.execute(
        """CREATE TABLE replies (
            last_number INTEGER PRIMARY KEY, memory TEXT, saved_at_ns INTEGER, data BLOB
        )"""
    )
    connection.execute(
        """CREATE TABLE begun (
            number INTEGER PRIMARY KEY, memory TEXT, key TEXT, begun_at_ns INTEGER
        )"""
    )


def _number_agents(connection: sqlite3.Connection) -> None:
    """Version 2: the agents' rows by numbers that rise, not by ids, which are random.

    What is saved together is on the same pages then: a third as much goes to the log.
    """
    connection.execute("ALTER TABLE agents RENAME TO agents_by_id")
    connection.execute(
        f"CREATE TABLE agents (row INTEGER PRIMARY KEY, id BLOB, {_FACTS_OF_VERSION_1})"
    )
    connection.execute("INSERT INTO agents SELECT NULL, * FROM agents_by_id ORDER BY started_at_ns")
    connection.execute("DROP TABLE agents_by_id")


STEPS: tuple[Step, ...] = (_first, _number_agents)
"""The step to each version; the last one's number is the version of this program."""
