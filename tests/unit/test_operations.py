"""The control commands over a keeper that has no processes: races and failures on demand."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from descartes_fast import AgentStatus, ControlCommandType
from descartes_fast.errors import (
    CommunicationError,
    InvalidContext,
    InvalidState,
    NotFound,
    Unsupported,
    WouldBlock,
)
from descartes_fast.server.actions import Actions
from descartes_fast.server.agent import Agent
from descartes_fast.server.journal import NoJournal
from descartes_fast.server.keeper_link import KeeperLink
from descartes_fast.server.operations import Operations, consumes, mutates
from descartes_fast.server.queries import Queries
from descartes_fast.server.tasks import Tasks
from unit.fake_keeper import FakeKeeper, Recorder, ended, made_agent, running_agent, started


@pytest.fixture
def keeper() -> FakeKeeper:
    return FakeKeeper()


@pytest.fixture
async def background() -> AsyncIterator[Tasks]:
    tasks = Tasks()
    yield tasks
    await tasks.aclose()


@pytest.fixture
def operations(keeper: FakeKeeper, background: Tasks) -> Operations:
    return Operations(
        cast(KeeperLink, keeper),
        Actions(1.0),
        Queries(ThreadPoolExecutor(1), ThreadPoolExecutor(1), timeout_secs=1.0),
        NoJournal(),
        background,
        pub_endpoint="ipc:///nowhere",
        stop_grace_secs=5.0,
        longest_wait_secs=1.0,
        releases=False,
    )


async def run(operations: Operations, agent: Agent, command: str, payload: Any = None) -> Any:
    outcome = operations.run(agent, ControlCommandType(command), payload, "request")
    return await outcome if asyncio.iscoroutine(outcome) else outcome


async def test_pause_that_fails_changes_no_status(
    keeper: FakeKeeper, operations: Operations
) -> None:
    agent = running_agent(Recorder())
    keeper.failure = CommunicationError("gone")
    with pytest.raises(CommunicationError):
        await run(operations, agent, "pause")
    assert agent.status is AgentStatus.RUNNING


async def test_pause_during_which_the_agent_ends_is_not_claimed(
    keeper: FakeKeeper, operations: Operations
) -> None:
    agent = running_agent(Recorder())
    keeper.stuck = asyncio.Event()
    pausing = asyncio.create_task(run(operations, agent, "pause"))
    await asyncio.sleep(0)
    agent.ended(ended(agent, exit_code=0))
    keeper.stuck.set()
    with pytest.raises(InvalidState):
        await pausing
    assert agent.status is AgentStatus.COMPLETED


async def test_pause_of_an_agent_that_ends_before_the_keeper_is_asked_says_so(
    keeper: FakeKeeper, operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = running_agent(Recorder())

    async def committed(_: NoJournal) -> None:
        agent.ended(ended(agent, exit_code=0))

    monkeypatch.setattr(NoJournal, "committed", committed)
    with pytest.raises(InvalidState):
        await run(operations, agent, "pause")
    assert keeper.calls == []
    assert not agent.pause_begun


async def test_resume_sent_behind_a_pause_takes_effect_after_it(
    keeper: FakeKeeper, operations: Operations
) -> None:
    agent = running_agent(Recorder())
    await asyncio.gather(run(operations, agent, "pause"), run(operations, agent, "resume"))
    assert keeper.calls == [("signal", signal.SIGSTOP, True), ("signal", signal.SIGCONT, True)]
    assert agent.status is AgentStatus.RUNNING


async def test_second_pause_signals_nothing(keeper: FakeKeeper, operations: Operations) -> None:
    agent = running_agent(Recorder())
    first = await run(operations, agent, "pause")
    assert await run(operations, agent, "pause") == first
    assert len(keeper.calls) == 1


async def test_agent_that_is_being_stopped_cannot_be_paused(operations: Operations) -> None:
    agent = running_agent(Recorder())
    await run(operations, agent, "stop")
    with pytest.raises(InvalidState, match="being stopped"):
        await run(operations, agent, "pause")


async def test_backends_cooperative_pause_is_the_default_and_force_overrules_it(
    keeper: FakeKeeper, operations: Operations
) -> None:
    agent = running_agent(Recorder(), pause="cooperative")
    assert (await run(operations, agent, "pause"))["mode"] == "cooperative"
    assert (await run(operations, agent, "pause", {"force": True}))["mode"] == "forced"
    assert (await run(operations, agent, "pause", {"mode": "cooperative"}))["mode"] == "forced"
    await run(operations, agent, "resume")
    assert keeper.calls == [
        ("write_stdin", b'{"type":"pause"}\n', False),
        ("signal", signal.SIGSTOP, True),
        ("write_stdin", b'{"type":"resume"}\n', False),
        ("signal", signal.SIGCONT, True),
    ]


async def test_cooperative_pause_whose_line_is_not_taken_is_no_pause(
    keeper: FakeKeeper, operations: Operations
) -> None:
    agent = running_agent(Recorder(), pause="cooperative")
    keeper.failure = WouldBlock("full")
    with pytest.raises(WouldBlock):
        await run(operations, agent, "pause")
    assert agent.status is AgentStatus.RUNNING


async def test_cooperative_pause_without_a_promise_is_unsupported(operations: Operations) -> None:
    with pytest.raises(Unsupported):
        await run(operations, running_agent(Recorder()), "pause", {"mode": "cooperative"})


@pytest.mark.parametrize("payload", [{"mode": "gentle"}, {"force": 1}, "forced", [1]])
async def test_pause_with_a_broken_payload_is_invalid(operations: Operations, payload: Any) -> None:
    with pytest.raises(InvalidContext):
        await run(operations, running_agent(Recorder()), "pause", payload)


@pytest.mark.parametrize("command", ["stop", "kill"])
async def test_end_asked_of_an_agent_that_is_starting_waits_for_its_start(
    keeper: FakeKeeper, operations: Operations, command: str
) -> None:
    agent = made_agent(Recorder())
    agent.accepted()
    ending = asyncio.create_task(run(operations, agent, command))
    await asyncio.sleep(0.01)
    assert keeper.calls == []
    agent.started(started())
    await ending
    assert keeper.calls[0][0] == command


@pytest.mark.parametrize("command", ["stop", "kill"])
async def test_end_asked_too_late_does_not_rename_the_agents_own_end(
    keeper: FakeKeeper, operations: Operations, command: str
) -> None:
    agent = running_agent(Recorder())
    keeper.failure = InvalidState("the agent has ended")
    await run(operations, agent, command)
    agent.ended(ended(agent, exit_code=0))
    assert agent.status is AgentStatus.COMPLETED


async def test_stop_wakes_a_paused_agent_and_says_so(operations: Operations) -> None:
    agent = running_agent(Recorder())
    await run(operations, agent, "pause")
    await run(operations, agent, "stop", {"grace_secs": 0.5})
    assert agent.status is AgentStatus.RUNNING


@pytest.mark.parametrize(
    ("payload", "grace"), [(None, 5.0), ({"grace_secs": 0}, 0.0), ({"grace_secs": 1e9}, 3600.0)]
)
async def test_grace_of_a_stop_is_the_callers_within_bounds(
    keeper: FakeKeeper, operations: Operations, payload: Any, grace: float
) -> None:
    await run(operations, running_agent(Recorder()), "stop", payload)
    assert keeper.calls == [("stop", grace)]


@pytest.mark.parametrize("grace", [-1, "5", True, float("nan")])
async def test_grace_that_is_no_time_is_invalid(operations: Operations, grace: Any) -> None:
    with pytest.raises(InvalidContext):
        await run(operations, running_agent(Recorder()), "stop", {"grace_secs": grace})


def test_what_must_not_be_done_twice() -> None:
    mutating = {command.value for command in ControlCommandType if mutates(command)}
    assert mutating == {
        "pause",
        "resume",
        "stop",
        "kill",
        "write_stdin",
        "signal",
        "custom_action",
    }
    assert consumes(ControlCommandType.READ_STDOUT, None)
    assert consumes(ControlCommandType.READ_STDERR, {"offset": None})
    assert not consumes(ControlCommandType.READ_STDOUT, {"offset": 0})
    assert not consumes(ControlCommandType.GET_STATUS, None)


@pytest.mark.parametrize("command", ["pause", "resume", "signal"])
async def test_command_to_an_agent_that_the_keeper_has_forgotten_is_refused_as_too_late(
    keeper: FakeKeeper, operations: Operations, command: str
) -> None:
    agent = running_agent(Recorder())
    keeper.stuck = asyncio.Event()
    keeper.failure = NotFound("no such agent")
    asked = asyncio.create_task(run(operations, agent, command, {"signal": "USR1"}))
    while not keeper.calls:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    agent.ended(ended(agent, exit_code=0))
    keeper.stuck.set()
    with pytest.raises(InvalidState, match="has ended"):
        await asked
