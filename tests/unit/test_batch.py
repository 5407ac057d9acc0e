"""Batches over a keeper that has no processes: what changes while it does what it was asked."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from descartes_fast import (
    AgentStatus,
    BatchControlCommand,
    BatchControlResponse,
    ControlCommandType,
    PauseMode,
    serialize_zmq_message,
)
from descartes_fast.errors import InvalidState
from descartes_fast.server import together as together_module
from descartes_fast.server.agent import Agent
from descartes_fast.server.batch import run_batch
from descartes_fast.server.batch_replies import BatchReplies
from descartes_fast.server.keeper_link import KeeperLink
from descartes_fast.server.operations import Operations
from descartes_fast.server.registry import Registry
from descartes_fast.server.together import Together
from unit.fake_keeper import FakeKeeper, Recorder, ended, running_agent


class Batches:
    """Three agents, and signals to all of them."""

    def __init__(self) -> None:
        self.keeper = FakeKeeper()
        self.registry = Registry(
            max_agents=10,
            retain_agents=0,
            retain_secs=0.0,
            retain_bytes=0,
            on_dropped=lambda agent: None,
        )
        self.agents = [running_agent(Recorder()) for _ in range(3)]
        for agent in self.agents:
            self.registry.add(agent)
        self._replies = BatchReplies()

    async def signal(self, number: str = "WINCH") -> BatchControlResponse:
        request = BatchControlCommand(
            request_id="a batch",
            agent_ids=[agent.id for agent in self.agents],
            command_type=ControlCommandType.SIGNAL,
            payload={"signal": number},
        )
        together = Together(cast(KeeperLink, self.keeper))
        operations = cast(Operations, None)
        return await run_batch(
            request, self.registry, operations, together, self._replies, 1.0, "key"
        )

    async def signal_meanwhile(self, happens: Any) -> BatchControlResponse:
        """Signal, and let something happen before the keeper answers."""
        self.keeper.stuck = asyncio.Event()
        signalling = asyncio.create_task(self.signal())
        while not self.keeper.calls:  # noqa: ASYNC110
            await asyncio.sleep(0)
        happens()
        self.keeper.stuck.set()
        return await signalling


@pytest.fixture
def batches() -> Batches:
    return Batches()


def statuses(response: BatchControlResponse) -> list[AgentStatus | None]:
    return [result.status for result in response.results]


async def test_status_that_changes_meanwhile_is_told_as_it_is_then(batches: Batches) -> None:
    await batches.signal()
    batches.keeper.calls.clear()
    agent = batches.agents[1]
    response = await batches.signal_meanwhile(lambda: agent.paused(PauseMode.FORCED))
    assert statuses(response) == ["running", "paused", "running"]
    agent.resumed()
    assert statuses(await batches.signal()) == ["running"] * 3


async def test_agent_that_is_forgotten_meanwhile_fails_alone(batches: Batches) -> None:
    await batches.signal()
    batches.keeper.calls.clear()
    batches.keeper.refused = {0: InvalidState("it has ended")}

    def forget() -> None:
        batches.registry.discard(batches.agents[2])

    response = await batches.signal_meanwhile(forget)
    assert [result.success for result in response.results] == [False, True, False]
    assert (response.successful, response.failed) == (1, 2)
    assert response.results[2].error is not None
    assert response.results[2].error.startswith("not_found: ")


async def test_agent_that_is_gone_is_told_no_more(batches: Batches) -> None:
    await batches.signal()
    gone: Agent = batches.agents[0]
    gone.ended(ended(gone))
    batches.registry.ended(gone)
    batches.registry.discard(gone)
    response = await batches.signal()
    assert [result.success for result in response.results] == [False, True, True]


async def test_parts_are_asked_for_by_keys_that_say_how_many_they_are(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together_module, "_AT_ONCE", 2)
    assert (await batches.signal()).success
    assert [call[1:] for call in batches.keeper.calls] == [
        (2, 28, "key/0+2"),
        (1, 28, "key/2+1"),
    ]


async def test_answers_from_the_table_are_those_that_are_built_to_the_byte(
    batches: Batches,
) -> None:
    response = await batches.signal()
    built = BatchControlResponse(
        request_id="a batch",
        success=True,
        results=[agent.granted() for agent in batches.agents],
        successful=3,
        failed=0,
    )
    assert response == built
    assert serialize_zmq_message(response) == serialize_zmq_message(built)


async def test_stranger_fails_alone_and_nobody_at_all_is_well(batches: Batches) -> None:
    batches.agents[1] = running_agent(Recorder())  # not in the registry
    response = await batches.signal()
    assert [result.success for result in response.results] == [True, False, True]
    batches.agents.clear()
    assert (await batches.signal()).success
