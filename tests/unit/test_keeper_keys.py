"""The memory of what was done: bounded in bytes and time, and it outlives a renewal."""

from __future__ import annotations

import json

import pytest

from descartes_fast.server.keeper import keys
from descartes_fast.server.keeper.keys import KeyMemory


def test_reply_is_recalled_as_it_was() -> None:
    memory = KeyMemory()
    memory.remember("k", {"bytes": 5})
    assert memory.recall("k") == {"bytes": 5}
    assert memory.recall("other") is None


def test_oldest_go_when_the_bytes_are_used_up() -> None:
    memory = KeyMemory(limit_bytes=10_000)
    for n in range(1000):
        memory.remember(str(n), {"bytes": n})
    kept = [n for n in range(1000) if memory.recall(str(n)) is not None]
    assert kept == list(range(kept[0], 1000))
    assert 20 <= len(kept) <= 10_000 // 350


def test_key_of_any_length_is_counted() -> None:
    memory = KeyMemory(limit_bytes=10_000)
    memory.remember("small", {})
    memory.remember("x" * 20_000, {})
    assert memory.saved() == []


def test_reply_is_forgotten_after_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(keys.time, "monotonic", lambda: now)
    memory = KeyMemory()
    memory.remember("early", {})
    now += 599
    memory.remember("late", {})
    assert memory.recall("early") == {}
    now += 2
    assert memory.recall("early") is None
    assert memory.recall("late") == {}


def test_memory_is_restored_with_its_times(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(keys.time, "monotonic", lambda: now)
    before = KeyMemory()
    before.remember("k", {"bytes": 1})
    after = KeyMemory()
    after.restore(json.loads(json.dumps(before.saved())))
    assert after.recall("k") == {"bytes": 1}
    now += 601
    assert after.recall("k") is None
