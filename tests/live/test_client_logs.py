"""Following output: every byte, in order, whatever is lost on the way."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from descartes_fast import (
    AgentStatus,
    CommunicationError,
    ControlCommand,
    LogStreamMessage,
    LogStreamType,
    NotFound,
    OutputGone,
    Subscription,
    connect,
)
from descartes_fast import feed as feed_module
from descartes_fast import logs as logs_module
from descartes_fast import telling as telling_module
from scripted_peer import ScriptedAgent, ScriptedPeer, until

OUT, ERR = LogStreamType.STDOUT, LogStreamType.STDERR

# Tries often, and gives up late.
PATIENT = {"reconnect_delay_secs": 0.1, "max_reconnect_attempts": 100}


async def rest(stream: Subscription[LogStreamMessage]) -> list[LogStreamMessage]:
    async with asyncio.timeout(10):
        return [message async for message in stream]


def joined(messages: list[LogStreamMessage], kind: LogStreamType = OUT, start: int = 0) -> bytes:
    """Return a stream's bytes, having checked that no message leaves a gap or repeats."""
    data = b""
    for message in messages:
        if message.stream_type == kind:
            assert message.sequence == start + len(data)
            data += message.data
    return data


async def test_output_that_was_there_before_is_replayed_and_followed_to_the_end() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        peer.write(agent, b"before ", lose=True)
        peer.write(agent, b"old error", "stderr", lose=True)
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id, from_offset=0)
            peer.write(agent, b"and after")
            peer.change(agent, AgentStatus.COMPLETED, exit_code=0)
            messages = await rest(stream)
            assert joined(messages) == b"before and after"
            assert joined(messages, ERR) == b"old error"


async def test_without_an_offset_it_begins_now() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        peer.write(agent, b"before", lose=True)
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id)
            peer.write(agent, b"after")
            peer.change(agent, AgentStatus.COMPLETED)
            messages = await rest(stream)
            assert joined(messages, start=6) == b"after"


async def test_offset_in_the_middle_begins_there() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        peer.write(agent, b"0123456789", lose=True)
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id, from_offset=4)
            peer.change(agent, AgentStatus.COMPLETED)
            assert joined(await rest(stream), start=4) == b"456789"


async def test_agent_that_has_ended_is_replayed_and_the_stream_ends() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent(AgentStatus.COMPLETED))
        peer.write(agent, b"x" * 1_000_000, lose=True)
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id, from_offset=0)
            assert joined(await rest(stream)) == b"x" * 1_000_000
            assert await rest(await client.stream_agent_logs(agent.id)) == []


async def test_lost_messages_are_read_and_repeats_are_not_told_twice() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        expected = b""
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id)
            for number in range(300):
                data = b"line %d\n" % number
                expected += data
                peer.write(agent, data, lose=number % 3 == 0)
                if number % 5 == 0:
                    peer.publish_log(agent, 0, expected)  # all of it again
            peer.change(agent, AgentStatus.COMPLETED)
            assert joined(await rest(stream)) == expected
            assert stream.dropped == 0


async def test_last_bytes_that_were_never_published_are_read_at_the_end() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id)
            peer.write(agent, b"seen, ")
            peer.write(agent, b"unseen", lose=True)
            peer.write(agent, b"error", "stderr", lose=True)
            peer.change(agent, AgentStatus.FAILED, exit_code=1)
            messages = await rest(stream)
            assert joined(messages) == b"seen, unseen"
            assert joined(messages, ERR) == b"error"


async def test_end_that_was_never_published_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "_RECHECK_SECS", 0.1)
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id)
            peer.write(agent, b"unseen", lose=True)
            peer.change(agent, AgentStatus.COMPLETED, lose=True)
            assert joined(await rest(stream)) == b"unseen"


async def test_slow_reader_gets_every_byte_within_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs_module, "QUEUE_LIMIT", 4)
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        expected = b""
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id)
            for number in range(500):
                expected += b"%d " % number
                peer.write(agent, b"%d " % number)
            peer.change(agent, AgentStatus.COMPLETED)
            await asyncio.sleep(0.3)
            assert len(stream._entries) <= 4
            messages = []
            async with asyncio.timeout(10):
                async for message in stream:
                    messages.append(message)
                    await asyncio.sleep(0)
            assert joined(messages) == expected
            assert stream.dropped == 0


async def test_trimmed_output_is_an_error_that_tells_the_range_and_then_goes_on() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        peer.write(agent, b"x" * 100 + b"what is left", lose=True)
        agent.trimmed[OUT] = 100
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id, from_offset=10)
            peer.change(agent, AgentStatus.COMPLETED)
            with pytest.raises(OutputGone) as caught:
                await rest(stream)
            assert (caught.value.start, caught.value.end) == (10, 100)
            assert caught.value.agent_id == str(agent.id)
            assert joined(await rest(stream), start=100) == b"what is left"


async def test_output_trimmed_to_nothing_is_told_and_the_stream_ends() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent(AgentStatus.COMPLETED))
        peer.write(agent, b"x" * 100, lose=True)
        agent.trimmed[OUT] = 100
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id, from_offset=0)
            with pytest.raises(OutputGone) as caught:
                await rest(stream)
            assert (caught.value.start, caught.value.end) == (0, 100)
            assert await rest(stream) == []


async def test_reconnect_leaves_no_gap() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **PATIENT) as client:
            stream = await client.stream_agent_logs(agent.id)
            peer.write(agent, b"one ")
            async with asyncio.timeout(5):
                first = await anext(stream)
            peer.vanish(for_secs=0.2)
            peer.write(agent, b"two ", lose=True)
            await until(lambda: peer.openings == 2)
            async with asyncio.timeout(5):
                second = await anext(stream)
            peer.write(agent, b"three")
            peer.change(agent, AgentStatus.COMPLETED)
            assert joined([first, second, *await rest(stream)]) == b"one two three"


async def test_server_gone_is_raised_and_the_stream_goes_on_when_it_is_back() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        config = {"reconnect_delay_secs": 0.1, "max_reconnect_attempts": 2}
        async with connect(peer.endpoint, **config) as client:
            stream = await client.stream_agent_logs(agent.id)
            peer.vanish(for_secs=1)
            peer.write(agent, b"meanwhile", lose=True)
            peer.change(agent, AgentStatus.COMPLETED, lose=True)
            with pytest.raises(CommunicationError):
                await rest(stream)
            assert joined(await rest(stream)) == b"meanwhile"


async def test_server_gone_while_the_queue_is_full_costs_no_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs_module, "QUEUE_LIMIT", 10)
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        config = {"reconnect_delay_secs": 0.1, "max_reconnect_attempts": 2}
        async with connect(peer.endpoint, **config) as client:
            stream = await client.stream_agent_logs(agent.id)
            for number in range(20):
                peer.write(agent, b"%02d" % number)
            await until(lambda: len(stream._entries) == 10)
            peer.vanish(for_secs=1)
            peer.change(agent, AgentStatus.COMPLETED, lose=True)
            await until(lambda: len(stream._entries) == 11)
            messages = [await anext(stream) for _ in range(10)]
            with pytest.raises(CommunicationError):
                await anext(stream)
            messages += await rest(stream)
            assert joined(messages) == b"".join(b"%02d" % number for number in range(20))


async def test_failing_read_is_raised_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "_RETRY_SECS", 0.05)
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent(AgentStatus.COMPLETED))
        peer.write(agent, b"hello", lose=True)
        failures: list[Any] = []

        def fail_once(request: Any) -> Any:
            reads = isinstance(request, ControlCommand) and "offset" in (request.payload or {})
            if reads and not failures:
                failures.append(request)
                from scripted_peer import refuse

                return refuse(request, "internal: the disk hiccuped")
            return NotImplemented

        async with connect(peer.endpoint) as client:
            peer.handler = fail_once
            stream = await client.stream_agent_logs(agent.id, from_offset=0)
            with pytest.raises(Exception, match="hiccuped"):
                await rest(stream)
            assert joined(await rest(stream)) == b"hello"


async def test_agent_forgotten_by_the_server_ends_the_stream_with_not_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs_module, "_RECHECK_SECS", 0.05)
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id)
            del peer.agents[agent.id]
            with pytest.raises(NotFound):
                await rest(stream)
            assert await rest(stream) == []
            with pytest.raises(NotFound):
                await client.stream_agent_logs(uuid4())


async def test_all_agents_are_followed_new_ones_from_their_beginning() -> None:
    with ScriptedPeer() as peer:
        old = peer.add(ScriptedAgent())
        peer.write(old, b"before", lose=True)
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs()
            new = peer.add(ScriptedAgent())
            peer.write(new, b"lost ", lose=True)
            peer.write(new, b"found")
            peer.write(old, b" after")
            peer.change(new, AgentStatus.COMPLETED)
            messages: list[LogStreamMessage] = []
            async with asyncio.timeout(5):
                while sum(len(message.data) for message in messages) < 16:
                    messages.append(await anext(stream))
            assert joined([m for m in messages if m.agent_id == new.id]) == b"lost found"
            assert joined([m for m in messages if m.agent_id == old.id], start=6) == b" after"


async def test_all_agents_from_the_start_replays_those_that_have_ended() -> None:
    with ScriptedPeer() as peer:
        agents = [peer.add(ScriptedAgent(AgentStatus.COMPLETED)) for _ in range(20)]
        for number, agent in enumerate(agents):
            peer.write(agent, b"output %02d" % number, lose=True)
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(from_offset=0)
            async with asyncio.timeout(5):
                messages = [await anext(stream) for _ in agents]
            assert {m.agent_id: m.data for m in messages} == {a.id: a.output[OUT] for a in agents}
            await stream.aclose()


async def test_straggler_of_an_agent_that_is_done_does_not_begin_anew() -> None:
    with ScriptedPeer() as peer:
        agent, other = peer.add(ScriptedAgent()), peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs()
            peer.write(agent, b"all of it")
            async with asyncio.timeout(5):
                first = await anext(stream)
                peer.change(agent, AgentStatus.COMPLETED)
                await until(lambda: agent.id in stream._finished)
                peer.publish_log(agent, 0, b"all of it")
                peer.write(other, b"next")
                second = await anext(stream)
            assert (first.data, second.data) == (b"all of it", b"next")


async def test_output_that_is_not_text_arrives_as_it_is() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        every_byte = bytes(range(256)) * 100
        async with connect(peer.endpoint) as client:
            stream = await client.stream_agent_logs(agent.id)
            peer.write(agent, every_byte)
            peer.write(agent, every_byte, lose=True)
            peer.change(agent, AgentStatus.COMPLETED)
            assert joined(await rest(stream)) == every_byte * 2


async def test_streams_that_have_ended_are_not_kept() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent(AgentStatus.COMPLETED))
        async with connect(peer.endpoint) as client:
            for _ in range(20):
                await rest(await client.stream_agent_logs(agent.id, from_offset=0))
            assert len(client._subscriptions) <= 2


@pytest.mark.parametrize("fault", ["unreachable", "silent", "foreign"])
@pytest.mark.parametrize("everybody", [False, True])
async def test_output_is_read_where_nothing_is_published_to_us(
    monkeypatch: pytest.MonkeyPatch, fault: str, everybody: bool
) -> None:
    monkeypatch.setattr(telling_module, "_PATIENCE_SECS", 0.1)
    monkeypatch.setattr(logs_module, "_POLL_SECS", 0.05)
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        config: dict[str, Any] = {}
        if fault == "unreachable":
            config["pub_endpoint"] = "tcp://127.0.0.1:9"
        elif fault == "silent":
            peer.echoes = False
        else:
            peer.echoed_id = "another"
        async with connect(peer.endpoint, **config) as client:
            stream = await client.stream_agent_logs(None if everybody else agent.id, from_offset=0)
            for word in (b"one ", b"two ", b"three"):
                peer.write(agent, word, lose=True)
                async with asyncio.timeout(3):
                    assert (await anext(stream)).data == word
            peer.change(agent, AgentStatus.COMPLETED, lose=True)
            if not everybody:
                assert await rest(stream) == []


async def test_publications_that_cease_are_made_up_for_by_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_module, "_SYNC_REPEAT_SECS", 0.05)
    monkeypatch.setattr(logs_module, "_POLL_SECS", 0.05)
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        config = {"heartbeat_interval_secs": 0.1, "request_timeout_secs": 0.4}
        async with connect(peer.endpoint, **config) as client:
            stream = await client.stream_agent_logs(agent.id, from_offset=0)
            peer.write(agent, b"told")
            first = await anext(stream)
            peer.echoes = False
            peer.write(agent, b" and read", lose=True)
            peer.change(agent, AgentStatus.COMPLETED, lose=True)
            assert joined([first, *await rest(stream)]) == b"told and read"
