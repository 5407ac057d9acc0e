"""The states of an agent: which follow which, what is told, and in which order."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from descartes_fast import AgentStatus, PauseMode
from descartes_fast.errors import InvalidState
from unit.fake_keeper import Recorder, ended, grown, made_agent, running_agent, started


def told(recorder: Recorder) -> list[tuple[str, str | None]]:
    return [
        (update.update_type.value, update.status.value if update.status else None)
        for update in recorder.updates
    ]


async def test_each_change_of_state_raises_seq_by_one() -> None:
    recorder = Recorder()
    agent = running_agent(recorder)
    agent.paused(PauseMode.FORCED)
    agent.resumed()
    agent.ended(ended(agent, exit_code=0))
    assert [update.data["seq"] for update in recorder.updates] == [1, 2, 3, 4, 5]
    assert told(recorder) == [
        ("status_changed", "initializing"),
        ("status_changed", "running"),
        ("status_changed", "paused"),
        ("status_changed", "running"),
        ("completed", "completed"),
    ]
    assert agent.status_data()["seq"] == 5


@pytest.mark.parametrize(
    ("how", "stop_asked", "signals", "status", "message"),
    [
        ({"exit_code": 0}, False, set(), "completed", None),
        ({"exit_code": 0}, True, set(), "terminated", None),
        ({"exit_code": 7}, False, set(), "failed", "exit code 7"),
        ({"exit_code": 7}, True, set(), "terminated", None),
        ({"signal": 11}, False, set(), "failed", "killed by SIGSEGV"),
        ({"signal": 63}, False, set(), "failed", "killed by signal 63"),
        ({"signal": 2}, False, {2}, "terminated", None),
        ({"signal": 11}, False, {2}, "failed", "killed by SIGSEGV"),
        ({"exit_code": 130}, False, {2}, "failed", "exit code 130"),
    ],
)
async def test_end_is_called_what_it_is(
    how: dict[str, int],
    stop_asked: bool,
    signals: set[int],
    status: str,
    message: str | None,
) -> None:
    recorder = Recorder()
    agent = running_agent(recorder)
    agent.stop_by_ns = 1 if stop_asked else None
    for number in signals:
        agent.signal_asked(number)
    agent.ended(ended(agent, **how))
    assert agent.status.value == status
    assert recorder.updates[-1].message == message
    assert recorder.updates[-1].data["exit_code"] == how.get("exit_code")
    assert recorder.updates[-1].data["signal"] == how.get("signal")


async def test_end_by_a_signal_long_after_it_was_asked_for_is_a_failure() -> None:
    agent = running_agent(Recorder())
    agent.signal_asked(signal.SIGTERM)
    long_after_ns = time.time_ns() + 60 * 10**9
    agent.ended(ended(agent, signal=signal.SIGTERM, ended_at_ns=long_after_ns))
    assert agent.status is AgentStatus.FAILED


async def test_signal_asked_for_during_a_pause_counts_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = running_agent(Recorder())
    agent.paused(PauseMode.FORCED)
    agent.signal_asked(signal.SIGTERM)
    later_ns = time.time_ns() + 60 * 10**9
    monkeypatch.setattr("descartes_fast.server.agent.time.time_ns", lambda: later_ns)
    agent.resumed()
    agent.ended(ended(agent, signal=signal.SIGTERM, ended_at_ns=later_ns))
    assert agent.status is AgentStatus.TERMINATED


async def test_end_that_overtakes_the_answer_to_the_launch_is_told_after_the_start() -> None:
    recorder = Recorder()
    agent = made_agent(recorder)
    agent.accepted()
    agent.output_grew(grown(agent, stdout=3))
    agent.ended(ended(agent, exit_code=0))
    assert agent.status is AgentStatus.INITIALIZING
    agent.started(started())
    assert [status for _, status in told(recorder)] == ["initializing", "running", "completed"]
    assert agent.stdout.end == 3


async def test_end_is_told_once() -> None:
    recorder = Recorder()
    agent = running_agent(recorder)
    for _ in range(2):
        agent.ended(ended(agent, exit_code=0))
    agent.lost("the keeper is gone")
    assert recorder.ends == 1
    assert agent.status is AgentStatus.COMPLETED


async def test_loss_of_the_keeper_is_a_failure_with_its_reason() -> None:
    recorder = Recorder()
    agent = running_agent(recorder)
    agent.lost("the keeper is gone")
    assert told(recorder)[-1] == ("error", "failed")
    assert recorder.updates[-1].message == "the keeper is gone"
    assert recorder.updates[-1].data["exit_code"] is None


async def test_paused_agent_shows_when_and_how_until_it_is_resumed_or_ends() -> None:
    agent = running_agent(Recorder())
    agent.paused(PauseMode.FORCED)
    assert agent.info().pause_mode is PauseMode.FORCED
    assert agent.info().paused_at is not None
    agent.ended(ended(agent, signal=int(signal.SIGKILL)))
    assert agent.info().pause_mode is agent.info().paused_at is None


async def test_info_is_made_again_only_when_something_changed() -> None:
    agent = running_agent(Recorder())
    first = agent.info()
    assert agent.info() is first
    agent.paused(PauseMode.FORCED)
    assert agent.info().status is AgentStatus.PAUSED


async def test_require_alive_names_the_state() -> None:
    agent = made_agent(Recorder())
    agent.accepted()
    with pytest.raises(InvalidState, match="still starting"):
        agent.require_alive("pause")
    agent.started(started())
    agent.require_alive("pause")
    agent.ended(ended(agent, exit_code=0))
    with pytest.raises(InvalidState, match="cannot pause: the agent has ended"):
        agent.require_alive("pause")


async def test_waiters_are_woken_by_output_and_leave_nothing_when_cancelled() -> None:
    agent = running_agent(Recorder())
    waiting = [asyncio.create_task(agent.wait_for_news()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    agent.output_grew(grown(agent, stdout=1))
    await asyncio.wait(waiting)
    assert [task.cancelled() for task in waiting] == [True, False, False]
