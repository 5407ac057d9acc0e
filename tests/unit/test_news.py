"""What the keeper says: kept until the agents are known, and forgotten only when it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast
from uuid import UUID

import pytest

from descartes_fast import AgentStatus
from descartes_fast.errors import ServerBusy
from descartes_fast.server import journal as journal_module
from descartes_fast.server.journal import NoJournal
from descartes_fast.server.news import KeeperNews
from descartes_fast.server.registry import Registry
from descartes_fast.server.tasks import Tasks
from unit.fake_keeper import Recorder, ended, grown, running_agent


class SlowJournal(NoJournal):
    """A journal whose commits wait; ``refusals`` fail before."""

    def __init__(self, refusals: int = 0) -> None:
        super().__init__()
        self.refusals = refusals
        self.go = asyncio.Event()

    async def committed(self) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ServerBusy("the disk is full")
        await self.go.wait()


class ForgetfulKeeper:
    def __init__(self) -> None:
        self.forgotten: list[UUID] = []

    def forget_ended(self, agent_ids: Iterable[UUID]) -> None:
        self.forgotten += agent_ids


def registry() -> Registry:
    return Registry(
        max_agents=10,
        retain_agents=10,
        retain_secs=60.0,
        retain_bytes=10**9,
        on_dropped=lambda agent: None,
    )


async def test_what_comes_before_the_agents_are_known_is_told_when_they_are() -> None:
    agents, journal, background = registry(), NoJournal(), Tasks()
    told = KeeperNews(agents, journal, background, lambda reason: None)
    agent = running_agent(Recorder())
    told.output_grew(grown(agent, stdout=5))
    told.agent_ended(ended(agent, exit_code=3, stdout_bytes=7))
    agents.restore(agent)
    keeper = ForgetfulKeeper()
    told.begin(cast(Any, keeper))
    assert (agent.status, agent.exit_code, agent.stdout.end) == (AgentStatus.FAILED, 3, 7)
    await background.join(1)
    assert keeper.forgotten == [agent.id]


async def test_lengths_that_were_said_before_a_restart_take_nothing_back() -> None:
    agent = running_agent(Recorder())
    agent.output_grew(grown(agent, stdout=9, stderr=4))
    agent.output_grew(grown(agent, stdout=5))
    assert (agent.stdout.end, agent.stderr.end) == (9, 4)


@pytest.mark.parametrize("refusals", [0, 2])
async def test_end_is_forgotten_by_the_keeper_only_when_it_is_stored(
    refusals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_RETRY_SECS", 0.01)
    journal, background, keeper = SlowJournal(refusals), Tasks(), ForgetfulKeeper()
    told = KeeperNews(registry(), journal, background, lambda reason: None)
    told.begin(cast(Any, keeper))
    agent = running_agent(Recorder())
    told.agent_ended(ended(agent, exit_code=0))
    await background.join(0.1)
    assert keeper.forgotten == []
    journal.go.set()
    await background.join(1)
    assert keeper.forgotten == [agent.id]


async def test_end_that_comes_during_a_commit_is_forgotten_after_the_next() -> None:
    journal, background, keeper = SlowJournal(), Tasks(), ForgetfulKeeper()
    told = KeeperNews(registry(), journal, background, lambda reason: None)
    told.begin(cast(Any, keeper))
    first, second = running_agent(Recorder()), running_agent(Recorder())
    told.agent_ended(ended(first, exit_code=0))
    await asyncio.sleep(0)
    told.agent_ended(ended(second, exit_code=0))
    this, journal.go = journal.go, asyncio.Event()
    this.set()
    await background.join(0.1)
    assert keeper.forgotten == [first.id]
    journal.go.set()
    await background.join(1)
    assert keeper.forgotten == [first.id, second.id]


async def test_agent_that_nobody_knows_is_forgotten_too() -> None:
    journal, background, keeper = NoJournal(), Tasks(), ForgetfulKeeper()
    told = KeeperNews(registry(), journal, background, lambda reason: None)
    told.begin(cast(Any, keeper))
    stranger = running_agent(Recorder())
    told.output_grew(grown(stranger, stdout=5))
    told.agent_ended(ended(stranger, exit_code=0))
    await background.join(1)
    assert keeper.forgotten == [stranger.id]


async def test_loss_is_passed_on() -> None:
    reasons: list[str] = []
    told = KeeperNews(registry(), NoJournal(), Tasks(), reasons.append)
    told.keeper_lost("gone")
    assert reasons == ["gone"]
