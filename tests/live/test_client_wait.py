"""Waiting for an agent's end: never missed, and not asked for all the time."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

import pytest

from descartes_fast import (
    AgentStatus,
    AgentTimeout,
    CommunicationError,
    ControlCommand,
    NotFound,
    connect,
)
from descartes_fast import feed as feed_module
from descartes_fast import telling as telling_module
from descartes_fast import waiting as waiting_module
from scripted_peer import ScriptedAgent, ScriptedPeer, until, until_async

# Tries often, and gives up late.
PATIENT = {"reconnect_delay_secs": 0.1, "max_reconnect_attempts": 100}


async def test_end_is_told_with_its_code_and_the_agent() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            waiting = asyncio.ensure_future(client.wait_agent(agent.id))
            await until(lambda: peer.count(ControlCommand) == 1)
            peer.change(agent, AgentStatus.FAILED, exit_code=7)
            end = await waiting
            assert (end.id, end.status, end.exit_code, end.signal) == (agent.id, "failed", 7, None)
            assert end.info is not None
            assert end.info.name == "scripted"


async def test_agent_that_has_ended_already_is_answered_at_once() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent(AgentStatus.COMPLETED))
        agent.exit_code = 0
        async with connect(peer.endpoint) as client:
            assert (await client.wait_agent(agent.id, 5)).exit_code == 0


async def test_end_between_the_question_and_the_answer_is_not_missed() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())

        def end_meanwhile(request: Any) -> Any:
            if isinstance(request, ControlCommand) and agent.status == "running":
                answer = peer.answer(request)
                peer.change(agent, AgentStatus.COMPLETED, exit_code=0)
                return answer
            return NotImplemented

        async with connect(peer.endpoint) as client:
            peer.handler = end_meanwhile
            assert (await client.wait_agent(agent.id, 5)).exit_code == 0


async def test_end_during_a_lost_connection_is_not_missed() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **PATIENT) as client:
            waiting = asyncio.ensure_future(client.wait_agent(agent.id, 10))
            await until(lambda: peer.count(ControlCommand) == 1)
            peer.vanish(for_secs=0.2)
            peer.change(agent, AgentStatus.COMPLETED, exit_code=0, lose=True)
            assert (await waiting).exit_code == 0


async def test_update_that_was_lost_is_found_by_looking_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting_module, "_RECHECK_SECS", 0.1)
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            waiting = asyncio.ensure_future(client.wait_agent(agent.id, 10))
            await until(lambda: peer.count(ControlCommand) == 1)
            peer.change(agent, AgentStatus.COMPLETED, exit_code=0, lose=True)
            assert (await waiting).exit_code == 0


async def test_agent_that_does_not_end_is_a_timeout() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            started = time.monotonic()
            with pytest.raises(AgentTimeout) as caught:
                await client.wait_agent(agent.id, 0.3)
            assert 0.2 < time.monotonic() - started < 2
            assert caught.value.agent_id == str(agent.id)


async def test_many_waits_share_one_socket_and_ask_twice_each() -> None:
    with ScriptedPeer() as peer:
        agents = [peer.add(ScriptedAgent()) for _ in range(200)]
        async with connect(peer.endpoint) as client:
            waits = [asyncio.ensure_future(client.wait_agent(agent.id, 20)) for agent in agents]
            await until(lambda: peer.count(ControlCommand) == 200)
            for number, agent in enumerate(agents):
                peer.change(agent, AgentStatus.COMPLETED, exit_code=number % 256)
            ends = await asyncio.gather(*waits)
            assert [end.exit_code for end in ends] == [number % 256 for number in range(200)]
            assert peer.count(ControlCommand) == 400


async def test_server_gone_is_a_communication_error() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        config = {"reconnect_delay_secs": 0.1, "max_reconnect_attempts": 2}
        async with connect(peer.endpoint, **config) as client:
            waiting = asyncio.ensure_future(client.wait_agent(agent.id))
            await until(lambda: peer.count(ControlCommand) == 1)
            peer.vanish(for_secs=1)
            with pytest.raises(CommunicationError):
                await waiting


async def test_unknown_agent_is_not_found() -> None:
    with ScriptedPeer() as peer:
        async with connect(peer.endpoint) as client:
            with pytest.raises(NotFound):
                await client.wait_agent(uuid4(), 5)


async def test_closing_the_client_ends_the_wait() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            waiting = asyncio.ensure_future(client.wait_agent(agent.id))
            await until(lambda: peer.count(ControlCommand) == 1)
        async with asyncio.timeout(5):
            with pytest.raises(CommunicationError):
                await waiting


@pytest.mark.parametrize("fault", ["unreachable", "silent", "foreign", "no endpoint"])
async def test_end_is_found_by_asking_where_nothing_is_published_to_us(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(telling_module, "_PATIENCE_SECS", 0.1)
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        config: dict[str, Any] = {}
        if fault == "unreachable":
            config["pub_endpoint"] = "tcp://127.0.0.1:9"
        elif fault == "silent":
            peer.echoes = False
        elif fault == "foreign":
            peer.echoed_id = "another"
        else:
            peer.announced = "nowhere"
        async with connect(peer.endpoint, **config) as client:
            waiting = asyncio.ensure_future(client.wait_agent(agent.id))
            await until(lambda: peer.count(ControlCommand) >= 2)
            peer.change(agent, AgentStatus.FAILED, exit_code=4, lose=True)
            async with asyncio.timeout(3):
                assert (await waiting).exit_code == 4


async def test_asking_stops_when_the_publications_are_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling_module, "_PATIENCE_SECS", 0.1)
    monkeypatch.setattr(feed_module, "_SYNC_REPEAT_SECS", 0.05)
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        peer.echoes = False
        config = {"heartbeat_interval_secs": 0.1, "request_timeout_secs": 0.4}
        async with connect(peer.endpoint, **config) as client:
            waiting = asyncio.ensure_future(client.wait_agent(agent.id))
            await until(lambda: peer.count(ControlCommand) >= 3)
            peer.echoes = True

            async def asked_no_more() -> bool:
                before = peer.count(ControlCommand)
                await asyncio.sleep(2.5)  # the longest time between two questions is two
                return peer.count(ControlCommand) == before

            await until_async(asked_no_more, True, 15)
            peer.change(agent, AgentStatus.COMPLETED, exit_code=0)
            async with asyncio.timeout(1):
                assert (await waiting).exit_code == 0
