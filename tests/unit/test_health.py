"""Health: the reason says what is the matter, in words."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from descartes_fast.errors import CommunicationError
from descartes_fast.server import health as health_module
from descartes_fast.server.health import Health
from descartes_fast.server.journal import NoJournal
from unit.fake_keeper import FakeKeeper


class NoShortage:
    def shortage(self) -> None:
        return None


def health_of(keeper: FakeKeeper) -> Health:
    shortage = cast(Any, NoShortage())
    return Health(cast(Any, keeper), shortage, NoJournal(), accepting=lambda: True)


async def test_keeper_that_refuses_is_quoted() -> None:
    keeper = FakeKeeper()
    keeper.failure = CommunicationError("the connection broke")
    assert await health_of(keeper).ask() == "the keeper does not answer: the connection broke"


async def test_keeper_that_hangs_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_PING_SECS", 0.05)
    keeper = FakeKeeper()
    keeper.stuck = asyncio.Event()
    assert await health_of(keeper).ask() == "the keeper has not answered for 0.05 s"


async def test_keeper_that_answers_is_healthy() -> None:
    assert await health_of(FakeKeeper()).ask() is None
