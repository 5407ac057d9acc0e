"""The registry: how many agents live, and which of those that ended stay."""

from __future__ import annotations

from typing import Any

from descartes_fast.server.agent import Agent
from descartes_fast.server.registry import Registry
from unit.fake_keeper import Recorder, ended, running_agent


def _registry(dropped: list[Agent], **limits: Any) -> Registry:
    values: dict[str, Any] = {
        "max_agents": 100,
        "retain_agents": 100,
        "retain_secs": 60.0,
        "retain_bytes": 1000,
    }
    return Registry(**(values | limits), on_dropped=dropped.append)


def _retired(registry: Registry, stdout_bytes: int) -> Agent:
    agent = running_agent(Recorder())
    registry.add(agent)
    agent.ended(ended(agent, exit_code=0, stdout_bytes=stdout_bytes))
    registry.ended(agent)
    registry.retire(agent)
    return agent


async def test_oldest_ended_agents_give_room_for_the_output_of_later_ones() -> None:
    dropped: list[Agent] = []
    registry = _registry(dropped)
    agents = [_retired(registry, 400) for _ in range(4)]
    assert dropped == agents[:2]
    assert registry.listed(None, None) == [agents[3], agents[2]]


async def test_last_ended_agent_stays_whatever_its_output_takes() -> None:
    dropped: list[Agent] = []
    registry = _registry(dropped)
    first, second = _retired(registry, 5000), _retired(registry, 6000)
    assert dropped == [first]
    assert registry.listed(None, None) == [second]
    third = _retired(registry, 10)
    assert dropped == [first, second]
    assert registry.listed(None, None) == [third]


async def test_number_of_retained_agents_holds_beside_their_bytes() -> None:
    dropped: list[Agent] = []
    registry = _registry(dropped, retain_agents=1)
    first, second = _retired(registry, 1), _retired(registry, 1)
    assert dropped == [first]
    registry.discard(second)
    assert registry.listed(None, None) == []
    kept = [_retired(registry, 1000)]
    assert registry.listed(None, None) == kept


async def test_kept_output_is_told_at_each_step_of_an_end() -> None:
    registry = _registry([])
    running, ending = running_agent(Recorder()), running_agent(Recorder())
    for agent in (running, ending):
        registry.add(agent)
        agent.stdout.end = 100
    assert (registry.output_bytes(), registry.ended_output_bytes()) == (200, 0)
    ending.ended(ended(ending, exit_code=0, stdout_bytes=150))
    registry.ended(ending)
    assert (registry.output_bytes(), registry.ended_output_bytes()) == (250, 150)
    registry.retire(ending)
    assert (registry.output_bytes(), registry.ended_output_bytes()) == (250, 150)
    given_up = running_agent(Recorder())
    registry.add(given_up)
    registry.ended(given_up)
    registry.discard(given_up)
    assert (registry.output_bytes(), registry.ended_output_bytes()) == (250, 150)
    assert registry.alive_count == 1
