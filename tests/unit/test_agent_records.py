"""An agent comes back from its record as it was, in an epoch of its own if it lives."""

from __future__ import annotations

import pytest

from descartes_fast import AgentStatus, LogStreamType, PauseMode
from descartes_fast.server.agent_records import record_of, restored_agent
from unit.fake_keeper import Recorder, ended, grown, running_agent

NOWHERE = "/nowhere"


async def test_agent_that_ended_is_restored_whole() -> None:
    agent = running_agent(Recorder(), metadata={"key": "value"})
    agent.output_grew(grown(agent, stdout=9, stderr=4))
    agent.cursors[LogStreamType.STDOUT] = 5
    agent.ended(ended(agent, exit_code=3, user_secs=1.5, max_rss_bytes=7))
    back = restored_agent(record_of(agent), NOWHERE, Recorder())
    assert record_of(back) == record_of(agent)
    assert back.info() == agent.info()
    assert back.status_data() == agent.status_data()
    assert (back.status, back.message, back.seq) == (AgentStatus.FAILED, "exit code 3", agent.seq)


async def test_agent_that_lives_goes_on_above_everything_published() -> None:
    agent = running_agent(Recorder())
    agent.paused(PauseMode.FORCED)
    agent.stop_by_ns = 1
    first = restored_agent(record_of(agent), NOWHERE, Recorder())
    assert first.seq > agent.seq + 100_000
    assert (first.status, first.pause_mode) == (AgentStatus.PAUSED, PauseMode.FORCED)
    assert first.stop_asked
    second = restored_agent(record_of(first), NOWHERE, Recorder())
    assert second.seq > first.seq + 100_000


@pytest.mark.parametrize("characters", [10, 4096, 5000])
async def test_shortened_task_is_shortened_once(characters: int) -> None:
    agent = running_agent(Recorder())
    agent.task = "x" * 4096 + "..." if characters > 4096 else "x" * characters
    once = restored_agent(record_of(agent), NOWHERE, Recorder())
    assert once.task == agent.task
