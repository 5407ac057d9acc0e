"""The memory of replies: what is a repeat, what is forgotten, who waits for whom."""

from __future__ import annotations

import asyncio

import pytest

from descartes_fast.server.access import LOCAL, Principal
from descartes_fast.server.replies import ReplyMemory


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> ReplyMemory:
    return ReplyMemory(10_000, 60.0, clock=clock)


def key_of(memory: ReplyMemory, body: bytes, principal: Principal = LOCAL) -> tuple[str, bytes]:
    key = memory.key(principal, "request-1", body)
    assert key is not None
    return key


def test_repeat_of_the_same_body_is_answered_from_memory(memory: ReplyMemory) -> None:
    memory.keep(key_of(memory, b"body"), b"reply")
    assert memory.recall(key_of(memory, b"body")) == b"reply"


def test_other_body_or_other_principal_is_not_a_repeat(memory: ReplyMemory) -> None:
    memory.keep(key_of(memory, b"body"), b"reply")
    assert memory.recall(key_of(memory, b"other")) is None
    assert memory.recall(key_of(memory, b"body", Principal("somebody else"))) is None


def test_request_without_id_has_no_key(memory: ReplyMemory) -> None:
    assert memory.key(LOCAL, "", b"body") is None


def test_reply_older_than_keep_secs_is_forgotten(memory: ReplyMemory, clock: Clock) -> None:
    memory.keep(key_of(memory, b"old"), b"reply")
    clock.now = 61.0
    memory.keep(key_of(memory, b"new"), b"reply")
    memory.expire()
    assert len(memory) == 1
    assert memory.recall(key_of(memory, b"old")) is None


def test_oldest_replies_make_room_and_bytes_stay_within_the_limit(memory: ReplyMemory) -> None:
    for number in range(100):
        memory.keep(key_of(memory, b"%d" % number), b"x" * 1000)
        assert memory.kept_bytes <= 10_000
    assert memory.recall(key_of(memory, b"0")) is None
    assert memory.recall(key_of(memory, b"99")) is not None


def test_reply_larger_than_the_memory_is_not_kept(memory: ReplyMemory) -> None:
    memory.keep(key_of(memory, b"small"), b"x")
    memory.keep(key_of(memory, b"large"), b"x" * 20_000)
    assert memory.recall(key_of(memory, b"large")) is None
    assert memory.recall(key_of(memory, b"small")) == b"x"


async def test_repeat_while_in_progress_gets_the_first_ones_reply(memory: ReplyMemory) -> None:
    key = key_of(memory, b"body")
    memory.begin(key)
    first, second = memory.recall(key), memory.recall(key)
    assert isinstance(first, asyncio.Future)
    assert first is second
    memory.keep(key, b"reply")
    assert memory.recall(key) is first  # it waits until the reply may be known
    memory.finish(key, b"reply")
    assert await first == b"reply"
    assert memory.recall(key) == b"reply"


async def test_repeat_of_a_request_without_outcome_is_cancelled_not_answered(
    memory: ReplyMemory,
) -> None:
    key = key_of(memory, b"body")
    memory.begin(key)
    waiting = memory.recall(key)
    assert isinstance(waiting, asyncio.Future)
    memory.finish(key, None)
    assert waiting.cancelled()
    assert memory.recall(key) is None


async def test_refusal_that_is_not_kept_still_reaches_the_waiting_repeat(
    memory: ReplyMemory,
) -> None:
    key = key_of(memory, b"body")
    memory.begin(key)
    waiting = memory.recall(key)
    assert isinstance(waiting, asyncio.Future)
    memory.finish(key, b"busy")
    assert await waiting == b"busy"
    assert memory.recall(key) is None
