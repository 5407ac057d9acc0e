"""Output on its way to the publisher: in turn, in order, without holes but those that are told."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any, cast

import pytest

from descartes_fast import LogStreamMessage, LogStreamType
from descartes_fast.server.agent import Agent
from descartes_fast.server.log_feed import LogFeed
from descartes_fast.server.output import OutputFile
from descartes_fast.server.publisher import Publisher
from descartes_fast.server.statistics import Counters
from descartes_fast.server.topics import Topics
from unit.fake_keeper import Recorder, grown, running_agent

KIB = 1024


class FakePublisher:
    """Keeps what would be published; everything is subscribed."""

    def __init__(self) -> None:
        self.topics = Topics()
        self.topics.add(b"")
        self.logs: list[LogStreamMessage] = []

    def publish_log(self, message: LogStreamMessage, size: int) -> None:
        self.logs.append(message)


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
def counters() -> Counters:
    return Counters()


def agent_with(folder: Path, stdout: bytes, stderr: bytes = b"") -> Agent:
    """Return an agent whose output is in files but not announced yet."""
    folder.mkdir()
    (folder / "stdout").write_bytes(stdout)
    (folder / "stderr").write_bytes(stderr)
    agent = running_agent(Recorder(), folder=str(folder))
    agent.output_grew(grown(agent, len(stdout), len(stderr)))
    return agent


async def turns(count: int = 100) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def feed_of(publisher: FakePublisher, counters: Counters) -> LogFeed:
    return LogFeed(cast(Publisher, publisher), counters)


async def test_large_output_is_cut_into_messages_of_64_kib_that_join(
    tmp_path: Path, publisher: FakePublisher, counters: Counters
) -> None:
    data = bytes(range(256)) * 1000
    agent = agent_with(tmp_path / "a", data, b"err")
    feed_of(publisher, counters).output_grew(agent)
    await turns()
    stdout = [log for log in publisher.logs if log.stream_type is LogStreamType.STDOUT]
    assert b"".join(log.data for log in stdout) == data
    assert [log.sequence for log in stdout] == [64 * KIB * n for n in range(4)]
    assert [log.data for log in publisher.logs if log not in stdout] == [b"err"]


async def test_flood_of_one_agent_lets_another_have_its_turn(
    tmp_path: Path, publisher: FakePublisher, counters: Counters
) -> None:
    flood = agent_with(tmp_path / "flood", bytes(4000 * KIB))
    quiet = agent_with(tmp_path / "quiet", b"hello")
    feed = feed_of(publisher, counters)
    feed.output_grew(flood)
    feed.output_grew(quiet)
    await turns(1)
    assert [log.data for log in publisher.logs if log.agent_id == quiet.id] == [b"hello"]
    assert sum(len(log.data) for log in publisher.logs) <= 256 * KIB + 64 * KIB


async def test_end_comes_after_the_last_byte(
    tmp_path: Path, publisher: FakePublisher, counters: Counters
) -> None:
    agent = agent_with(tmp_path / "a", bytes(1000 * KIB))
    published_at_end: list[int] = []
    feed = feed_of(publisher, counters)
    feed.finish(
        agent, lambda: published_at_end.append(sum(len(log.data) for log in publisher.logs))
    )
    assert published_at_end == []
    await turns()
    assert published_at_end == [1000 * KIB]


async def test_end_of_what_nobody_wants_comes_at_once(
    tmp_path: Path, publisher: FakePublisher, counters: Counters
) -> None:
    publisher.topics.remove(b"")
    agent = agent_with(tmp_path / "a", b"unread")
    ends: list[bool] = []
    feed_of(publisher, counters).finish(agent, lambda: ends.append(True))
    assert ends == [True]
    assert publisher.logs == []


async def test_last_subscriber_that_leaves_ends_the_work(
    tmp_path: Path, publisher: FakePublisher, counters: Counters
) -> None:
    agent = agent_with(tmp_path / "a", bytes(4000 * KIB))
    ends: list[bool] = []
    feed = feed_of(publisher, counters)
    feed.finish(agent, lambda: ends.append(True))
    await turns(1)
    publisher.topics.remove(b"")
    before = len(publisher.logs)
    await turns()
    assert len(publisher.logs) == before
    assert ends == [True]


async def test_trimmed_bytes_are_skipped_and_counted(
    tmp_path: Path, publisher: FakePublisher, counters: Counters
) -> None:
    agent = agent_with(tmp_path / "a", bytes(100))
    agent.stdout.start = 60
    feed_of(publisher, counters).output_grew(agent)
    await turns()
    assert [(log.sequence, len(log.data)) for log in publisher.logs] == [(60, 40)]
    assert counters.log_bytes_skipped == 60


async def test_closed_feed_tells_the_ends_that_waited(
    tmp_path: Path, publisher: FakePublisher, counters: Counters
) -> None:
    agent = agent_with(tmp_path / "a", bytes(100))
    ends: list[bool] = []
    feed = feed_of(publisher, counters)
    feed.finish(agent, lambda: ends.append(True))
    feed.close()
    await turns()
    assert ends == [True]
    assert publisher.logs == []


async def test_shortage_of_descriptors_delays_the_rest_and_the_end(
    tmp_path: Path, publisher: FakePublisher, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agent_with(tmp_path / "a", bytes(200 * KIB))
    ended = asyncio.Event()
    failures = 3
    opened = os.open

    def short_of(*arguments: Any, **options: Any) -> int:
        nonlocal failures
        if str(arguments[0]).startswith(str(tmp_path)) and failures:
            failures -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(*arguments, **options)

    monkeypatch.setattr(os, "open", short_of)
    feed_of(publisher, counters).finish(agent, ended.set)
    async with asyncio.timeout(5):
        await ended.wait()
    assert sum(len(log.data) for log in publisher.logs) == 200 * KIB
    assert counters.log_bytes_skipped == 0


async def test_disk_that_fails_costs_its_agent_the_output_and_nobody_the_end(
    tmp_path: Path, publisher: FakePublisher, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = agent_with(tmp_path / "broken", bytes(100 * KIB))
    sound = agent_with(tmp_path / "sound", b"hello")
    ends: list[Agent] = []
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: reported.append(context["message"])
    )
    read = OutputFile.read

    def fail(output: OutputFile, offset: int, max_bytes: int) -> bytes:
        if output is broken.stdout:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(output, offset, max_bytes)

    monkeypatch.setattr(OutputFile, "read", fail)
    feed = feed_of(publisher, counters)
    for agent in (broken, sound):
        feed.finish(agent, lambda agent=agent: ends.append(agent))  # type: ignore[misc]
    await turns()
    assert ends == [broken, sound]
    assert [log.data for log in publisher.logs] == [b"hello"]
    assert counters.log_bytes_skipped == 100 * KIB
    assert len(reported) == 1
