"""What is said of an agent without asking it again is never older than what it has told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from descartes_fast import (
    CommandResponse,
    ControlCommand,
    ControlCommandType,
    PauseMode,
    deserialize_zmq_message,
    serialize_zmq_message,
)
from descartes_fast._core.quick_status import QuickReplies
from descartes_fast.server.agent import Agent
from descartes_fast.server.registry import Registry
from descartes_fast.server.statistics import Counters
from descartes_fast.server.status_replies import StatusReplies
from unit.fake_keeper import Recorder, ended, grown, made_agent, running_agent, started


def question(agent: Agent) -> bytes:
    return serialize_zmq_message(
        ControlCommand(
            request_id="r",
            agent_id=agent.id,
            command_type=ControlCommandType.GET_STATUS,
            payload=None,
        )
    )


class Asking(Recorder):
    """Asks about the agent, as the thread before the loop does, whenever something is told."""

    def __init__(self) -> None:
        super().__init__()
        self.quick = QuickReplies()
        self.stale: list[Any] = []

    def state_changed(self, agent: Agent) -> None:
        super().state_changed(agent)
        self._ask(agent)

    def output_grew(self, agent: Agent) -> None:
        super().output_grew(agent)
        self._ask(agent)

    def ended(self, agent: Agent) -> None:
        super().ended(agent)
        self._ask(agent)

    def _ask(self, agent: Agent) -> None:
        self.stale.append(self.quick.reply_to(question(agent)))


def registry_of(agent: Agent, dropped: list[Agent]) -> Registry:
    registry = Registry(
        max_agents=9,
        retain_agents=1,
        retain_secs=60.0,
        retain_bytes=1000,
        on_dropped=dropped.append,
    )
    registry.add(agent)
    return registry


CHANGES: dict[str, Callable[[Agent], None]] = {
    "paused": lambda agent: agent.paused(PauseMode.FORCED),
    "resumed": lambda agent: agent.resumed(),
    "output": lambda agent: agent.output_grew(grown(agent, stdout=7)),
    "measured": lambda agent: agent.measure(grown(agent, stderr=7)),
    "ended": lambda agent: agent.ended(ended(agent, exit_code=3, stdout_bytes=5)),
    "lost": lambda agent: agent.lost("the keeper is gone"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_change_takes_the_answer_back_before_it_is_told(
    change: Callable[[Agent], None],
) -> None:
    asking = Asking()
    agent = running_agent(asking)
    registry, counters = registry_of(agent, []), Counters()
    replies = StatusReplies(registry, counters, asking.quick)
    asking.stale.clear()
    before = replies.reply_to(question(agent))
    assert before is not None
    assert asking.quick.reply_to(question(agent)) == before
    change(agent)
    assert asking.quick.reply_to(question(agent)) is None
    assert asking.stale == [None] * len(asking.stale)
    after: Any = deserialize_zmq_message(replies.reply_to(question(agent)) or b"")
    assert isinstance(after, CommandResponse)
    assert after.data == agent.status_data()
    assert after.status is agent.status
    assert replies.reply_to(question(agent)) == asking.quick.reply_to(question(agent))
    assert counters.commands == 3


async def test_start_takes_back_what_was_said_of_an_agent_that_was_starting() -> None:
    asking = Asking()
    changes: list[Callable[[Agent], None]] = [
        lambda agent: agent.started(started()),
        lambda agent: agent.start_failed("no such file"),
    ]
    for change in changes:
        agent = made_agent(asking)
        agent.accepted()
        replies = StatusReplies(registry_of(agent, []), Counters(), asking.quick)
        assert replies.reply_to(question(agent)) is not None
        asking.stale.clear()
        change(agent)
        assert asking.stale == [None]


async def test_agent_that_is_dropped_is_no_longer_answered_for() -> None:
    asking, dropped = Asking(), list[Agent]()
    agent, next_one = running_agent(asking), running_agent(asking)
    registry = registry_of(agent, dropped)
    registry.add(next_one)
    replies = StatusReplies(registry, Counters(), asking.quick)
    for each in (agent, next_one):
        each.ended(ended(each, exit_code=0))
        assert replies.reply_to(question(each)) is not None
        registry.retire(each)
    assert dropped == [agent]
    assert asking.quick.reply_to(question(agent)) is None
    assert replies.reply_to(question(agent)) is None
    registry.discard(next_one)
    assert asking.quick.reply_to(question(next_one)) is None


async def test_what_is_no_question_is_left_to_others() -> None:
    agent = running_agent(Recorder())
    counters = Counters()
    replies = StatusReplies(registry_of(agent, []), counters, QuickReplies())
    other = running_agent(Recorder())
    assert replies.reply_to(b"") is None
    assert replies.reply_to(question(other)) is None
    assert counters.commands == 0
