"""A server like Rust's: no features, text reads, a log sequence of messages, no status."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from descartes_fast import (
    AgentStatus,
    ControlCommand,
    ControlCommandType,
    LogStreamMessage,
    LogStreamType,
    Subscription,
    Unsupported,
    connect,
    serialize_zmq_message,
)
from descartes_fast import counted_logs as counted_logs_module
from descartes_fast import status as status_module
from scripted_peer import ScriptedAgent, ScriptedPeer, consent, until


def publish(peer: ScriptedPeer, agent: ScriptedAgent, number: int, data: bytes) -> None:
    message = LogStreamMessage(
        agent_id=agent.id, stream_type=LogStreamType.STDOUT, data=data, sequence=number
    )
    peer.publish(str(agent.id).encode(), serialize_zmq_message(message))


async def joined_the_feed(peer: ScriptedPeer, count: int = 1) -> None:
    await until(lambda: len(peer.subscribed) >= count)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"data": "plain text"}, b"plain text"),
        ({"stdout": "by name"}, b"by name"),
        ("bare", b"bare"),
        ({"data": "grüße"}, "grüße".encode()),
        ({"data": ""}, None),
        ({"data": None}, None),
        (None, None),
        ({}, None),
        ({"data": "aGk=", "encoding": "base64"}, b"hi"),
        ({"data": [104, 105], "encoding": "bytes"}, b"hi"),
    ],
)
async def test_read_answers_of_every_kind_become_bytes(data: Any, expected: bytes | None) -> None:
    with ScriptedPeer(features=None) as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            peer.handler = lambda request: (
                consent(request, data)
                if isinstance(request, ControlCommand)
                and request.command_type == ControlCommandType.READ_STDOUT
                else NotImplemented
            )
            assert await client.read_agent_stdout(agent.id) == expected


async def test_logs_are_followed_and_missing_messages_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counted_logs_module, "_POLL_SECS", 0.1)
    with ScriptedPeer(features=None) as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id)
            await joined_the_feed(peer)
            for number in (5, 6, 9):
                publish(peer, agent, number, b"%d" % number)
            agent.status = AgentStatus.COMPLETED
            async with asyncio.timeout(5):
                messages = [message.data async for message in stream]
            assert messages == [b"5", b"6", b"9"]
            assert stream.dropped == 2


async def test_logs_of_all_agents_are_followed() -> None:
    with ScriptedPeer(features=None) as peer:
        agents = [peer.add(ScriptedAgent()) for _ in range(10)]
        async with connect(peer.endpoint) as client:
            stream: Subscription[LogStreamMessage] = await client.stream_agent_logs()
            await joined_the_feed(peer, 16)
            for agent in agents:
                publish(peer, agent, 0, b"hello")
            async with asyncio.timeout(5):
                seen = {(await anext(stream)).agent_id for _ in agents}
            assert seen == {agent.id for agent in agents}


async def test_replay_is_unsupported() -> None:
    with ScriptedPeer(features=None) as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            with pytest.raises(Unsupported):
                await client.stream_agent_logs(agent.id, from_offset=0)


async def test_status_is_asked_for_where_it_is_not_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(status_module, "_POLL_SECS", 0.05)
    with ScriptedPeer(features=None) as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            everybody = await client.subscribe_status_updates()
            one = await client.subscribe_status_updates(agent.id)
            async with asyncio.timeout(5):
                first = await anext(everybody)
                assert (first.status, first.data) == ("running", {"snapshot": True})
                agent.status = AgentStatus.PAUSED
                assert (await anext(everybody)).status == "paused"
                late = peer.add(ScriptedAgent())
                assert (await anext(everybody)).agent_id == late.id
                agent.status = AgentStatus.COMPLETED
                assert (await anext(everybody)).update_type == "completed"
                statuses = [update.status async for update in one]
            assert statuses[0] == "running"
            assert statuses[-1] == "completed"


async def test_wait_asks_where_no_end_is_published() -> None:
    with ScriptedPeer(features=None) as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            waiting = asyncio.ensure_future(client.wait_agent(agent.id, 10))
            await until(lambda: peer.count(ControlCommand) >= 2)
            agent.status = AgentStatus.COMPLETED
            agent.exit_code = 0
            assert (await waiting).exit_code == 0


async def test_agent_is_found_in_the_list_where_get_status_does_not_tell_it() -> None:
    with ScriptedPeer(features=None) as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            info = await client.get_remote_agent(agent.id)
            assert info is not None
            assert info.name == "scripted"
            assert await client.get_remote_agent(ScriptedAgent().id) is None
