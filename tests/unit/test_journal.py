"""The journal: what was committed is there, whole groups only, and no file is thrown away."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgpack  # type: ignore[import-untyped]
import pytest

from descartes_fast import AgentConfig
from descartes_fast.errors import ServerBusy
from descartes_fast.server import journal as journal_module
from descartes_fast.server.journal import Haste, Journal, NoJournal
from descartes_fast.server.journal_records import AgentRecord, stored_config
from descartes_fast.server.journal_store import JournalStore
from descartes_fast.server.state_view import prune_state
from unit.journals import record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[Journal]:
    journal = Journal.open(path)
    yield journal
    await journal.aclose()


async def reopened(journal: Journal, path: Path) -> Journal:
    await journal.aclose()
    return Journal.open(path)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110, RUF100 - nothing tells of it
            await asyncio.sleep(0.005)


def stored_replies(journal: Journal) -> dict[str, bytes | None]:
    return {saved.key: saved.reply for saved in journal.replies()}


# -- what is kept ------------------------------------------------------------------------


async def test_every_field_of_an_agent_is_kept(journal: Journal, path: Path) -> None:
    values: dict[str, Any] = {}
    for number, (name, kind) in enumerate(inspect.get_annotations(AgentRecord).items()):
        kinds = {"str": f"text {number}", "int": number, "float": number / 2, "bool": True}
        values[name] = kinds.get(getattr(kind, "__forward_arg__", str(kind)).split(" ")[0])
    values |= {"id": uuid4(), "metadata": {"key": "value"}, "config": b"\x00\xff"}
    assert None not in values.values()
    saved = AgentRecord(**values)
    journal.save_agent(saved)
    again = await reopened(journal, path)
    assert again.agents() == [saved]
    assert again.agents() == []  # they are told once
    await again.aclose()


async def test_journal_keeps_its_identity_and_another_has_its_own(
    journal: Journal, path: Path, tmp_path: Path
) -> None:
    again = await reopened(journal, path)
    other = Journal.open(tmp_path / "other.sqlite")
    assert (again.journal_id, again.instance) == (journal.journal_id, journal.instance)
    assert other.journal_id != journal.journal_id
    assert other.instance != journal.instance
    assert len(journal.instance) == 16
    await again.aclose()
    await other.aclose()


async def test_last_record_and_last_cursor_count(journal: Journal, path: Path) -> None:
    first = record()
    journal.save_agent(first)
    journal.save_cursor(first.id, "stdout", 5)
    await journal.committed()
    journal.save_cursor(first.id, "stdout", 7)
    journal.save_cursor(first.id, "stderr", 9)
    journal.save_agent(first._replace(seq=3, stdout_cursor=8, stderr_cursor=9))
    journal.save_cursor(first.id, "stdout", 10)
    again = await reopened(journal, path)
    (found,) = again.agents()
    assert (found.seq, found.stdout_cursor, found.stderr_cursor) == (3, 10, 9)
    await again.aclose()


@pytest.mark.parametrize("commit_between", [False, True])
async def test_removed_agent_is_gone(journal: Journal, path: Path, commit_between: bool) -> None:
    one, two = record(), record()
    journal.save_agent(one)
    journal.save_agent(two)
    if commit_between:
        await journal.committed()
    journal.remove_agent(one.id)
    again = await reopened(journal, path)
    assert [found.id for found in again.agents()] == [two.id]
    await again.aclose()


@pytest.mark.parametrize("commit_between", [False, True])
async def test_request_that_was_begun_is_known_until_it_is_over(
    journal: Journal, path: Path, commit_between: bool
) -> None:
    over = journal.begin("actions", "over")
    journal.begin("actions", "not over")
    if commit_between:
        await journal.committed()
    journal.withdraw(over)
    journal.save_reply("actions", "over", b"reply")
    again = await reopened(journal, path)
    assert stored_replies(again) == {"over": b"reply", "not over": None}
    await again.aclose()


async def test_replies_of_one_memory_are_forgotten_by_number(journal: Journal, path: Path) -> None:
    journal.save_reply("changes", "old", b"1")
    await journal.committed()
    journal.save_reply("reads", "other", b"2")
    number = journal.save_reply("changes", "new", b"3")
    journal.forget_replies("changes", number)
    again = await reopened(journal, path)
    assert stored_replies(again) == {"other": b"2", "new": b"3"}
    assert again.save_reply("changes", "newest", b"4") > number
    await again.aclose()


async def test_callbacks_come_in_order_after_the_commit(journal: Journal, path: Path) -> None:
    called: list[str] = []
    journal.then(lambda: called.append("nothing to wait for"))
    assert called == ["nothing to wait for"]
    journal.save_reply("changes", "key", b"reply")
    journal.then(lambda: called.append("one"))
    journal.then(lambda: called.append("two"))
    assert len(called) == 1
    await journal.committed()
    assert called[1:] == ["one", "two"]
    with sqlite3.connect(path) as looking:
        assert looking.execute("SELECT count(*) FROM replies").fetchone() == (1,)
    looking.close()


async def test_no_journal_waits_for_nothing() -> None:
    journal = NoJournal()
    journal.save_reply("changes", "key", b"reply")
    called: list[int] = []
    journal.then(lambda: called.append(1))
    await journal.committed()
    assert called == [1]
    assert journal.replies() == journal.agents() == []


def test_values_of_the_environment_are_stored_only_if_told() -> None:
    config = AgentConfig(
        name="n", environment={"KEY": "secret-value"}, task="the task", system_prompt="x" * 100_000
    )
    assert b"secret-value" not in stored_config(config, with_environment=False)
    assert b"KEY" in stored_config(config, with_environment=False)
    assert b"secret-value" in stored_config(config, with_environment=True)
    assert len(stored_config(config, with_environment=True)) < 10_000
    assert b"the task" not in stored_config(config, with_environment=True)


# -- crashes and full disks --------------------------------------------------------------

_WRITER = """
import asyncio, sys
from pathlib import Path
from descartes_fast.server.journal import Journal

async def main():
    journal = Journal.open(Path(sys.argv[1]))
    number = int(sys.argv[2])
    while True:
        for _ in range(number % 7 + 1):  # a group: all of these or none
            number += 1
            journal.save_reply("changes", str(number), b"x" * (number % 2000))
        await journal.committed()
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()

asyncio.run(main())
"""


def killed_writer(path: Path, most: int, groups: int) -> int:
    """Let a process commit some groups and kill it; return the last number it said is there."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(most)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        said = b"".join(writer.stdout.readline() for _ in range(groups))
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.read()
    return int(said.decode().split("\n")[:-1][-1])  # of the last line there may be half


async def test_what_was_committed_survives_any_number_of_kills(path: Path) -> None:
    most = 0
    for number in range(12):
        acknowledged = killed_writer(path, most, 1 + number * 20)
        journal = Journal.open(path)
        found = {int(key) for key in stored_replies(journal)}
        await journal.aclose()
        most = max(found)
        assert found == set(range(1, most + 1))
        # What was said is there, and at most the group after it: all of that or nothing.
        assert most in (acknowledged, acknowledged + acknowledged % 7 + 1)


async def test_refusing_disk_is_told_and_what_was_recorded_is_written_later(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_RETRY_SECS", 0.01)
    database = journal._store._connection
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count={pages}")
    journal.save_reply("changes", "large", b"x" * 100_000)
    told: list[bool] = []
    journal.then(lambda: told.append(journal.trouble is not None))
    with pytest.raises(ServerBusy, match="full"):
        await journal.committed()
    assert told == [True]
    assert journal.trouble is not None
    assert "full" in journal.trouble
    journal.save_reply("changes", "later", b"y")
    journal.then(lambda: told.append(journal.trouble is not None))
    assert told == [True, True]  # nobody waits for a disk that is full
    with pytest.raises(ServerBusy):
        await journal.committed()
    database.execute("PRAGMA max_page_count=100000")
    await until(lambda: journal.trouble is None)
    await journal.committed()
    again = await reopened(journal, path)
    assert stored_replies(again) == {"large": b"x" * 100_000, "later": b"y"}
    await again.aclose()


async def test_what_waits_for_a_full_disk_is_bounded(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal._store._connection.execute("PRAGMA query_only=1")
    for _ in range(1000):
        number = journal.save_reply("changes", "key", b"x" * 1000)
        journal.forget_replies("changes", number - 10)
    assert len(journal._pending.replies["changes"]) <= 11
    journal._store._connection.execute("PRAGMA query_only=0")


async def test_log_begins_anew_where_commits_never_pause(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_CHECKPOINT_BYTES", 200_000)
    log = path.with_name(path.name + "-wal")
    largest = 0
    for number in range(3000):
        journal.save_reply("changes", str(number), b"x" * 1000)
        journal.forget_replies("changes", number - 100)
        await journal.committed()
        largest = max(largest, log.stat().st_size)
    assert largest < 12 * 1024 * 1024  # 3,000 commits are 24 MiB
    again = await reopened(journal, path)
    assert len(stored_replies(again)) >= 100
    await again.aclose()


async def test_reader_of_the_journal_does_not_hold_commits_up(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_CHECKPOINT_BYTES", 200_000)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM replies").fetchone()
        async with asyncio.timeout(4):  # SQLite's own patience with a reader is five seconds
            for number in range(300):
                journal.save_reply("changes", str(number), b"x" * 1000)
                await journal.committed()
    await journal.aclose()


async def test_log_is_bounded_by_bytes_however_few_the_commits(
    journal: Journal, path: Path
) -> None:
    log = path.with_name(path.name + "-wal")
    for number in range(60):
        journal.forget_replies("reads", journal.save_reply("reads", str(number), b"x" * 1_000_000))
        await journal.committed()
    # A slow disk lets it grow beyond that while it is written into the database, and it is given
    # back when the log begins anew.
    async with asyncio.timeout(10):
        while max(file.stat().st_size for file in (log, path)) > 32 * 1024 * 1024:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_log_that_cannot_grow_begins_anew_and_there_is_room_again(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_RETRY_SECS", 0.01)
    log = path.with_name(path.name + "-wal")
    for number in range(100):
        journal.save_reply("changes", str(number), b"x" * 10_000)
        await journal.committed()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 5_000, before[1]))
    try:
        journal.save_reply("changes", "refused", b"x" * 10_000)
        with pytest.raises(ServerBusy):
            await journal.committed()
        await until(lambda: journal.trouble is None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    again = await reopened(journal, path)
    assert len(stored_replies(again)) == 101
    await again.aclose()


async def test_first_write_to_a_new_log_is_not_on_the_event_loop(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_CHECKPOINT_BYTES", 200_000)
    log = path.with_name(path.name + "-wal")
    begun_by: list[bool] = []  # whether that was in a thread
    salt = log.read_bytes()[16:24]  # another one in each log
    store, begin = journal._store, journal._store.begin_log

    def begin_log() -> None:
        nonlocal salt
        assert log.read_bytes()[16:24] == salt, "a commit began the log"
        begin()
        salt = log.read_bytes()[16:24]
        begun_by.append(threading.current_thread() is not threading.main_thread())

    monkeypatch.setattr(store, "begin_log", begin_log)
    async with asyncio.timeout(10):
        while len(begun_by) < 4:
            journal.save_reply("changes", "key", b"x" * 5000)
            await journal.committed()
    await until(lambda: journal._checkpointing is None)
    assert all(begun_by)
    assert log.read_bytes()[16:24] == salt
    await journal.aclose()


async def test_file_that_is_gone_is_noticed_and_so_is_its_return(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_RETRY_SECS", 0.01)
    journal.look()
    assert journal.trouble is None
    os.rename(path, aside := f"{path} aside")
    journal.look()
    assert journal.trouble is not None
    assert "removed or replaced" in journal.trouble
    journal.save_reply("changes", "key", b"reply")
    with pytest.raises(ServerBusy):
        await journal.committed()
    os.rename(aside, path)
    await journal.stored()
    assert journal.trouble is None
    again = await reopened(journal, path)
    assert stored_replies(again) == {"key": b"reply"}
    await again.aclose()


async def test_only_the_newest_replies_are_read(journal: Journal, path: Path) -> None:
    for number in range(100):
        journal.save_reply(("reads", "changes")[number == 0], str(number), b"x" * 1000)
        await journal.committed()
    await journal.aclose()
    for _ in range(2):  # the others are gone, not only left out
        again = Journal.open(path, reply_bytes=10_500)
        assert list(stored_replies(again)) == ["0", *map(str, range(90, 100))]
        await again.aclose()
    again = Journal.open(path)
    assert len(stored_replies(again)) == 11
    await again.aclose()


@pytest.mark.parametrize("replay_secs", [0.0, 1000.0])
async def test_pruning_leaves_nothing_of_replies_that_are_too_old(
    journal: Journal, path: Path, replay_secs: float
) -> None:
    journal.save_agent(record(task="secret task", status="completed", ended_at_ns=1))
    journal.save_reply("changes", "key", b"secret reply" * 1000)
    await journal.aclose()
    assert len(prune_state(path.parent, 0.0, replay_secs)) == 1
    found = b"".join(file.read_bytes() for file in path.parent.glob("journal*"))
    assert b"secret task" not in found
    assert (b"secret reply" in found) is (replay_secs > 0)


async def test_patient_group_waits_longer_in_a_crowd_and_a_reply_never(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_CROWDED_GROUP_SECS", 60.0)
    journal.save_agent(record())
    await journal.committed()
    journal.is_crowded = True
    journal.save_agent(record())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await journal.committed()
    journal.save_reply("changes", "key", b"reply")
    async with asyncio.timeout(5):
        await journal.committed()


async def test_what_a_lone_spawn_records_waits_for_nobody(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_GROUP_SECS", 60.0)
    journal.save_agent(record())
    await journal.committed()
    journal.save_agent(record())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await journal.committed()
    async with asyncio.timeout(5):
        await journal.committed(at_once=True)
    journal.save_reply("changes", "lone", b"reply", haste=Haste.GROUP)
    async with asyncio.timeout(5):
        await journal.committed()
    journal.spawning = 1
    journal.save_reply("changes", "not alone", b"reply", haste=Haste.GROUP)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await journal.committed()


async def test_spare_reply_is_stored_soon_and_nobody_waits_for_it(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_SPARE_GROUP_SECS", 60.0)
    journal.save_reply("changes", "spare", b"reply", haste=Haste.SPARE)
    called: list[str] = []
    journal.then(lambda: called.append("at once"))
    assert called == ["at once"]
    # With what others wait for it is committed, too; and then waited for.
    journal.save_agent(record())
    journal.save_reply("changes", "with it", b"reply", haste=Haste.SPARE)
    journal.then(lambda: called.append("then"))
    assert called == ["at once"]
    async with asyncio.timeout(5):
        await journal.committed()
    assert called == ["at once", "then"]
    assert stored_keys(path) == ["spare", "with it"]


async def test_spare_reply_by_itself_is_stored_within_its_time(
    journal: Journal, path: Path
) -> None:
    journal.save_reply("changes", "spare", b"reply", haste=Haste.SPARE)
    async with asyncio.timeout(5):
        while not stored_keys(path):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_spare_reply_is_stored_when_the_journal_is_closed(
    journal: Journal, path: Path
) -> None:
    journal.save_reply("changes", "spare", b"reply", haste=Haste.SPARE)
    await journal.aclose()
    assert stored_keys(path) == ["spare"]


async def test_reply_is_waited_for_where_spare_ones_wait_for_a_checkpoint(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_CHECKPOINT_BYTES", 0)
    monkeypatch.setattr(journal_module, "_SPARE_GROUP_SECS", 0.0)
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def begin_log(store: Any) -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)

    monkeypatch.setattr(JournalStore, "begin_log", begin_log)
    journal.save_agent(record())
    async with asyncio.timeout(5):
        await begun.wait()
    journal.save_reply("changes", "spare", b"reply", haste=Haste.SPARE)
    await asyncio.sleep(0.01)  # its time comes, and it is held
    journal.save_reply("changes", "other", b"reply")
    called: list[bool] = []
    journal.then(lambda: called.append(True))
    assert not called
    go_on.set()
    async with asyncio.timeout(5):
        await journal.committed()
    assert called
    assert stored_keys(path) == ["spare", "other"]


def stored_keys(path: Path) -> list[str]:
    """Return the keys of the replies in a journal, the oldest first."""
    with contextlib.closing(sqlite3.connect(path)) as looking:
        groups = looking.execute("SELECT data FROM replies ORDER BY last_number").fetchall()
    return [key for (data,) in groups for _, key, _ in msgpack.unpackb(data)]
