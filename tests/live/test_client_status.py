"""Status subscriptions: the snapshot, the order, and what happens when updates are missed."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from descartes_fast import (
    AgentStatus,
    CommunicationError,
    ControlCommand,
    ListAgentsRequest,
    NotFound,
    StatusUpdate,
    StatusUpdateType,
    Subscription,
    Unsupported,
    connect,
    serialize_zmq_message,
)
from descartes_fast import feed as feed_module
from descartes_fast import link as link_module
from descartes_fast import status as status_module
from scripted_peer import ScriptedAgent, ScriptedPeer, until

# Tries often, and gives up late.
PATIENT = {"reconnect_delay_secs": 0.1, "max_reconnect_attempts": 100}


async def take(stream: Subscription[StatusUpdate], count: int) -> list[StatusUpdate]:
    async with asyncio.timeout(5):
        return [await anext(stream) for _ in range(count)]


def is_snapshot(update: StatusUpdate) -> bool:
    return bool(update.data and update.data.get("snapshot"))


async def test_snapshot_of_all_agents_comes_first_and_then_the_changes() -> None:
    with ScriptedPeer() as peer:
        running = peer.add(ScriptedAgent())
        done = peer.add(ScriptedAgent(AgentStatus.COMPLETED))
        async with connect(peer.endpoint) as client:
            stream = await client.subscribe_status_updates()
            first = await take(stream, 2)
            assert {update.agent_id: update.status for update in first} == {
                running.id: AgentStatus.RUNNING,
                done.id: AgentStatus.COMPLETED,
            }
            assert {update.update_type for update in first} == {
                StatusUpdateType.STATUS_CHANGED,
                StatusUpdateType.COMPLETED,
            }
            assert all(is_snapshot(update) for update in first)
            peer.change(running, AgentStatus.PAUSED)
            peer.change(running, AgentStatus.RUNNING)
            changes = await take(stream, 2)
            assert [update.status for update in changes] == ["paused", "running"]
            assert not any(is_snapshot(update) for update in changes)


async def test_change_during_the_snapshot_is_told_once() -> None:
    """An agent changes after the list was made: asked again, and the update is no news then."""
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())

        def change_meanwhile(request: Any) -> Any:
            if not isinstance(request, ListAgentsRequest):
                return NotImplemented
            answer = peer.answer(request)
            peer.change(agent, AgentStatus.PAUSED)
            return answer

        async with connect(peer.endpoint) as client:
            peer.handler = change_meanwhile
            stream = await client.subscribe_status_updates()
            peer.change(agent, AgentStatus.RUNNING)
            first, second = await take(stream, 2)
            assert (first.status, is_snapshot(first)) == ("paused", True)
            assert (second.status, is_snapshot(second)) == ("running", False)


async def test_agent_that_starts_during_the_snapshot_is_not_missed() -> None:
    with ScriptedPeer() as peer:

        def start_meanwhile(request: Any) -> Any:
            if not isinstance(request, ListAgentsRequest):
                return NotImplemented
            answer = peer.answer(request)
            agent = peer.add(ScriptedAgent(AgentStatus.INITIALIZING))
            agent.seq = 0
            peer.change(agent, AgentStatus.INITIALIZING)
            peer.change(agent, AgentStatus.RUNNING)
            return answer

        async with connect(peer.endpoint) as client:
            peer.handler = start_meanwhile
            stream = await client.subscribe_status_updates()
            updates = await take(stream, 2)
            assert [update.status for update in updates] == ["initializing", "running"]


async def test_one_agent_is_followed_to_its_end_and_no_other() -> None:
    with ScriptedPeer() as peer:
        agent, other = peer.add(ScriptedAgent()), peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            stream = await client.subscribe_status_updates(agent.id)
            peer.change(other, AgentStatus.PAUSED)
            peer.change(agent, AgentStatus.COMPLETED, exit_code=0)
            async with asyncio.timeout(5):
                updates = [update async for update in stream]
            assert [update.status for update in updates] == ["running", "completed"]
            assert updates[0].data["seq"] == 2
            assert updates[1].data["exit_code"] == 0


async def test_agent_that_has_ended_is_a_snapshot_and_the_end() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent(AgentStatus.FAILED))
        async with connect(peer.endpoint) as client:
            stream = await client.subscribe_status_updates(agent.id)
            async with asyncio.timeout(5):
                updates = [update async for update in stream]
            assert [(u.update_type, u.status) for u in updates] == [("error", "failed")]


async def test_unknown_agent_is_not_found() -> None:
    with ScriptedPeer() as peer:
        async with connect(peer.endpoint) as client:
            with pytest.raises(NotFound):
                await client.subscribe_status_updates(uuid4())


async def test_reconnect_brings_a_new_snapshot_with_what_was_missed() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **PATIENT) as client:
            stream = await client.subscribe_status_updates()
            await take(stream, 1)
            peer.vanish(for_secs=0.2)
            peer.change(agent, AgentStatus.FAILED, exit_code=1, lose=True)
            (update,) = await take(stream, 1)
            assert (update.status, is_snapshot(update)) == ("failed", True)
            peer.change(agent, AgentStatus.RUNNING)
            assert (await take(stream, 1))[0].status == "running"


async def test_server_gone_for_good_is_raised_and_the_stream_recovers() -> None:
    with ScriptedPeer() as peer:
        peer.add(ScriptedAgent())
        config = {"reconnect_delay_secs": 0.1, "max_reconnect_attempts": 2}
        async with connect(peer.endpoint, **config) as client:
            stream = await client.subscribe_status_updates()
            await take(stream, 1)
            peer.vanish(for_secs=1)
            with pytest.raises(CommunicationError):
                await take(stream, 1)
            (update,) = await take(stream, 1)
            assert is_snapshot(update)


async def test_slow_reader_loses_the_oldest_counted_and_gets_a_new_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(status_module, "QUEUE_LIMIT", 10)
    monkeypatch.setattr(status_module, "_RETRY_SECS", 0.01)
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            stream = await client.subscribe_status_updates()
            await take(stream, 1)
            for _ in range(50):
                peer.change(agent, AgentStatus.PAUSED)
                peer.change(agent, AgentStatus.RUNNING)
            await until(lambda: stream.dropped >= 90)
            await take(stream, 10)
            (update,) = await take(stream, 1)
            assert (update.status, is_snapshot(update)) == ("running", True)


async def test_garbage_among_the_updates_is_skipped() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            stream = await client.subscribe_status_updates()
            await take(stream, 1)
            topic = b"status/" + str(agent.id).encode()
            peer.publish(topic, b"\xc1garbage")
            peer.publish(topic, b"")
            peer.publish(topic, serialize_zmq_message(ListAgentsRequest(request_id="x")))
            peer.change(agent, AgentStatus.PAUSED)
            assert (await take(stream, 1))[0].status == "paused"


async def test_heartbeat_of_the_server_is_passed_on() -> None:
    with ScriptedPeer() as peer:
        async with connect(peer.endpoint) as client:
            stream = await client.subscribe_status_updates()
            nil = ScriptedAgent()
            beat = StatusUpdate(
                agent_id=nil.id, update_type=StatusUpdateType.HEARTBEAT, data={"active_agents": 0}
            )
            peer.publish(b"status/" + str(nil.id).encode(), serialize_zmq_message(beat))
            assert (await take(stream, 1))[0].update_type == "heartbeat"


async def test_wildcard_publisher_is_reached_at_the_commands_host() -> None:
    with ScriptedPeer(announced_host="0.0.0.0") as peer:
        peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            await take(await client.subscribe_status_updates(), 1)


async def test_publisher_that_is_not_there_is_a_communication_error() -> None:
    with ScriptedPeer() as peer:
        config = {"pub_endpoint": "tcp://127.0.0.1:9", "request_timeout_secs": 0.5}
        async with connect(peer.endpoint, **config) as client:
            with pytest.raises(CommunicationError, match=r"tcp://127\.0\.0\.1:9"):
                await client.subscribe_status_updates()


async def test_server_that_does_not_say_where_it_publishes_is_unsupported() -> None:
    with ScriptedPeer() as peer:

        def silent(request: Any) -> Any:
            answer = peer.answer(request)
            metadata = {k: v for k, v in answer.metadata.items() if k != "pub_endpoint"}
            return answer.__replace__(metadata=metadata)

        peer.handler = silent
        async with connect(peer.endpoint) as client:
            with pytest.raises(Unsupported, match="pub_endpoint"):
                await client.subscribe_status_updates()


async def test_server_that_publishes_elsewhere_after_a_restart_is_followed() -> None:
    with ScriptedPeer() as peer, ScriptedPeer() as elsewhere:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **PATIENT) as client:
            stream = await client.subscribe_status_updates()
            await take(stream, 1)
            peer.announced = elsewhere.pub_endpoint
            peer.vanish()
            (update,) = await take(stream, 1)
            assert is_snapshot(update)
            elsewhere.change(agent, AgentStatus.PAUSED)
            assert (await take(stream, 1))[0].status == "paused"


async def test_closing_the_client_ends_its_subscriptions() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            stream = await client.subscribe_status_updates(agent.id)
            reading = asyncio.ensure_future(take(stream, 2))
            await asyncio.sleep(0)
        with pytest.raises(StopAsyncIteration):
            await reading
        await stream.aclose()


async def test_impatient_reader_does_not_disturb_the_stream() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **PATIENT) as client:
            stream = await client.subscribe_status_updates()
            await take(stream, 1)
            peer.vanish()
            peer.change(agent, AgentStatus.FAILED, lose=True)
            deadline = asyncio.get_running_loop().time() + 5
            while True:
                assert asyncio.get_running_loop().time() < deadline
                try:
                    update = await asyncio.wait_for(anext(stream), 0.001)
                except TimeoutError:
                    continue
                break
            assert update.status == "failed"
            assert peer.count(ControlCommand) <= 1


async def test_publisher_whose_connection_is_dead_is_connected_to_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_module, "_SYNC_REPEAT_SECS", 0.05)
    with ScriptedPeer() as peer:
        peer.add(ScriptedAgent())
        peer.echoes = False
        async with connect(peer.endpoint) as client:
            subscribing = asyncio.ensure_future(client.subscribe_status_updates())

            def syncs() -> int:
                return sum(topic.startswith(b"sync/") for topic in peer.subscribed)

            await until(lambda: peer.subscribed.count(b"status/") == 2)
            assert syncs() >= 4
            peer.echoes = True
            await take(await subscribing, 1)


def silent_feed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let a client notice quickly that nothing is published to it."""
    monkeypatch.setattr(feed_module, "_SYNC_REPEAT_SECS", 0.05)
    monkeypatch.setattr(status_module, "_RETRY_SECS", 0.05)
    return {"heartbeat_interval_secs": 0.1, "request_timeout_secs": 0.4}


async def test_silent_publishing_connection_is_noticed_and_gets_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **silent_feed(monkeypatch)) as client:
            stream = await client.subscribe_status_updates()
            await take(stream, 1)
            peer.echoes = False
            peer.change(agent, AgentStatus.PAUSED, lose=True)
            with pytest.raises(CommunicationError, match="does not answer"):
                await take(stream, 1)
            peer.echoes = True
            (update,) = await take(stream, 1)
            assert (update.status, is_snapshot(update)) == ("paused", True)


async def test_publications_of_another_server_are_refused_by_name() -> None:
    """As with a tunnel of which only the command port leads to the right server."""
    with ScriptedPeer(server_id="right") as peer:
        agent = peer.add(ScriptedAgent())
        peer.echoed_id = "wrong"
        async with connect(peer.endpoint, reconnect_delay_secs=0.1) as client:
            with pytest.raises(CommunicationError, match="'wrong', not to 'right'") as caught:
                await client.subscribe_status_updates()
            assert peer.pub_endpoint in str(caught.value)
            assert "set pub_endpoint" in str(caught.value)
            peer.echoed_id = ""  # one that does not say who it is
            stream = await client.subscribe_status_updates(agent.id)
            await take(stream, 1)


async def test_other_server_behind_an_open_subscription_is_told_and_not_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **silent_feed(monkeypatch)) as client:
            stream = await client.subscribe_status_updates()
            await take(stream, 1)
            peer.echoed_id = "wrong"
            with pytest.raises(CommunicationError, match="'wrong'"):
                await take(stream, 1)
            peer.change(agent, AgentStatus.PAUSED)
            peer.change(agent, AgentStatus.FAILED)
            peer.echoed_id = None
            (update,) = await take(stream, 1)
            assert (update.status, is_snapshot(update)) == ("failed", True)


async def test_announced_endpoint_that_is_none_costs_only_the_subscriptions() -> None:
    with ScriptedPeer() as peer:
        peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **PATIENT) as client:
            stream = await client.subscribe_status_updates()
            await take(stream, 1)
            peer.announced = "bogus://x"
            peer.vanish()
            with pytest.raises(CommunicationError, match="bogus://x"):
                await take(stream, 1)
            assert len(await client.list_remote_agents()) == 1
            peer.announced = ""
            peer.vanish()
            assert is_snapshot((await take(stream, 1))[0])


async def test_shortage_of_descriptors_is_told_and_gets_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ScriptedPeer() as peer, ScriptedPeer() as elsewhere:
        peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **PATIENT) as client:
            stream = await client.subscribe_status_updates()
            await take(stream, 1)
            peer.announced = elsewhere.pub_endpoint
            with monkeypatch.context() as shortage:
                shortage.setattr(link_module, "descriptors_left", lambda count: False)
                peer.vanish()
                with pytest.raises(CommunicationError, match="no file descriptors"):
                    await take(stream, 1)
                with pytest.raises(CommunicationError, match="no file descriptors"):
                    await client.subscribe_status_updates()
            assert is_snapshot((await take(stream, 1))[0])
            await take(await client.subscribe_status_updates(), 1)


async def test_agents_that_vanished_are_told_as_gone_in_the_new_snapshot() -> None:
    """As when the server was killed and started again: it knows none of the old ones."""
    with ScriptedPeer() as peer:
        paused, ended = peer.add(ScriptedAgent()), peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **PATIENT) as client:
            stream = await client.subscribe_status_updates()
            await take(stream, 2)
            peer.change(paused, AgentStatus.PAUSED)
            peer.change(ended, AgentStatus.COMPLETED, exit_code=0)
            await take(stream, 2)
            peer.agents.clear()
            new = peer.add(ScriptedAgent())
            peer.vanish()
            updates = {update.agent_id: update for update in await take(stream, 2)}
            assert set(updates) == {paused.id, new.id}
            gone = updates[paused.id]
            assert (gone.update_type, gone.status) == ("terminated", "terminated")
            assert gone.data == {"snapshot": True, "gone": True}
            peer.vanish()
            assert [update.agent_id for update in await take(stream, 1)] == [new.id]


async def test_agent_that_vanished_from_a_server_without_publications_is_told_as_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(status_module, "_POLL_SECS", 0.02)
    with ScriptedPeer(features=None) as peer:
        running, ended = peer.add(ScriptedAgent()), peer.add(ScriptedAgent(AgentStatus.FAILED))
        async with connect(peer.endpoint) as client:
            stream = await client.subscribe_status_updates()
            await take(stream, 2)
            del peer.agents[ended.id]
            del peer.agents[running.id]
            (update,) = await take(stream, 1)
            assert (update.agent_id, update.status) == (running.id, "terminated")
            assert update.data == {"gone": True}
