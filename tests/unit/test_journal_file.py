"""The journal's file: whose it is, what it was before, and what is no journal."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from descartes_fast.errors import UsageError
from descartes_fast.server import journal_schema
from descartes_fast.server.journal import Journal
from descartes_fast.server.journal_changes import Changes
from descartes_fast.server.journal_records import AgentRecord
from descartes_fast.server.journal_schema import STEPS, open_database
from descartes_fast.server.journal_store import JournalStore
from unit.journals import record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


async def test_files_are_for_their_user_only(path: Path) -> None:
    journal = Journal.open(path)
    journal.save_agent(record())
    await journal.committed()
    files = list(path.parent.iterdir())
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    await journal.aclose()


def test_link_is_refused(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    path.symlink_to(target)
    with pytest.raises(UsageError, match="cannot be opened"):
        Journal.open(path)


async def test_database_of_an_older_version_takes_the_missing_steps(path: Path) -> None:
    journal = Journal.open(path)
    saved = record()
    journal.save_agent(saved)
    await journal.aclose()

    def add_column(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE agents ADD COLUMN colour TEXT DEFAULT 'red'")

    for _ in range(2):  # the second time there is nothing to do
        connection = open_database(path, (*STEPS, add_column))
        assert connection.execute("SELECT name, colour FROM agents").fetchall() == [
            ("a name", "red")
        ]
        assert connection.execute("PRAGMA user_version").fetchone() == (len(STEPS) + 1,)
        connection.close()


async def test_agents_of_version_1_are_kept_and_change_as_others_do(path: Path) -> None:
    agents = [record(started_at_ns=age, name=f"agent {age}") for age in (3, 1, 2)]
    rows = [
        {**saved._asdict(), "id": saved.id.bytes, "metadata": msgpack.packb(saved.metadata)}
        for saved in agents
    ]
    names = AgentRecord._fields
    with contextlib.closing(open_database(path, STEPS[:1])) as connection:
        tables = tables_of(connection)
        connection.executemany(
            f"INSERT INTO agents ({', '.join(names)}) VALUES (:{', :'.join(names)})", rows
        )
    journal = Journal.open(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert tables_of(connection) == tables
        by_row = connection.execute("SELECT name FROM agents ORDER BY row").fetchall()
        assert by_row == [("agent 1",), ("agent 2",), ("agent 3",)]
    third, first, second = agents
    assert journal.agents() == [first, second, third]
    newest = record(started_at_ns=4)
    changed = first._replace(status="completed", exit_code=0)
    for saved in (newest, changed):
        journal.save_agent(saved)
    journal.remove_agent(third.id)
    journal.save_cursor(second.id, "stdout", 5)
    await journal.committed()
    journal.save_agent(newest._replace(seq=9))
    await journal.aclose()
    journal = Journal.open(path)
    read = second._replace(stdout_cursor=5)
    assert journal.agents() == [changed, read, newest._replace(seq=9)]
    await journal.aclose()


def tables_of(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")} - {
        "sqlite_autoindex_agents_1"  # of the ids, in version 1
    }


async def test_new_agent_takes_nobodys_row_though_clocks_are_set(path: Path) -> None:
    kept = [record(started_at_ns=age) for age in (9, 1)]  # the last row is not the newest
    journal = Journal.open(path)
    for saved in kept:
        journal.save_agent(saved)
        await journal.committed()
    await journal.aclose()
    journal = Journal.open(path)
    added = record(started_at_ns=5)
    journal.save_agent(added)
    await journal.aclose()
    journal = Journal.open(path)
    assert journal.agents() == [kept[1], added, kept[0]]
    await journal.aclose()


def test_removal_that_was_refused_is_carried_out_later(path: Path) -> None:
    with contextlib.closing(JournalStore(path)) as store:
        kept, gone = record(started_at_ns=1), record(started_at_ns=2)
        changes = Changes()
        for saved in (kept, gone):
            changes.save_agent(saved.id, saved)
        store.write(changes)
        changes = Changes()
        changes.save_agent(kept.id, kept._replace(seq=3))
        changes.save_agent(gone.id, None)
        changes.replies["changes"] = [(1, "key", b"")]
        store.write(replies_of(1))  # the number is taken: the group is refused as a whole
        with pytest.raises(sqlite3.IntegrityError):
            store.write(changes)
        changes.replies.clear()
        store.write(changes)
    with contextlib.closing(JournalStore(path)) as store:
        assert store.agents == [kept._replace(seq=3)]


def replies_of(number: int) -> Changes:
    changes = Changes()
    changes.replies["changes"] = [(number, "key", b"")]
    return changes


def test_rows_are_forgotten_with_their_agents(path: Path) -> None:
    with contextlib.closing(JournalStore(path)) as store:
        for _ in range(3):
            saved = record()
            for state in (saved, None):
                changes = Changes()
                changes.save_agent(saved.id, state)
                store.write(changes)
        assert store._rows == {}


def test_step_that_fails_leaves_the_version_before_it(path: Path) -> None:
    open_database(path).close()

    def failing(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (a)")
        connection.execute("nonsense")

    with pytest.raises(UsageError, match="cannot be read"):
        open_database(path, (*STEPS, failing))
    connection = open_database(path)
    tables = tables_of(connection)
    connection.close()
    assert "half" not in tables


def test_database_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    open_database(path, (*STEPS, lambda connection: None)).close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match="newer version"):
        Journal.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [b"no database at all" * 100, None])
async def test_broken_file_is_refused_and_left_alone(path: Path, damage: bytes | None) -> None:
    journal = Journal.open(path)
    for _ in range(100):
        journal.save_agent(record(task="x" * 4000))
    await journal.aclose()
    check_broken_file(path, damage)


def check_broken_file(path: Path, damage: bytes | None) -> None:
    whole = path.read_bytes()
    broken = damage or whole[:8192] + os.urandom(len(whole) - 8192)
    path.write_bytes(broken)
    with pytest.raises(UsageError, match=r"cannot be read.*move both files away"):
        Journal.open(path)
    assert path.read_bytes() == broken


def test_disk_that_is_full_is_not_taken_for_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(path).close()

    def refuse(*_: Any) -> None:
        database = sqlite3.connect(":memory:")
        database.execute("PRAGMA max_page_count=1")
        with contextlib.closing(database):
            database.execute("CREATE TABLE large (a)")

    monkeypatch.setattr(journal_schema, "_migrate", refuse)
    with pytest.raises(UsageError, match=r"cannot be used now: .*full") as refusal:
        Journal.open(path)
    assert "leave it where it is" in str(refusal.value)
