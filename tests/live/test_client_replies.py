"""A client and a server whose replies are lost, late, doubled, broken or someone else's."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any
from uuid import uuid4

import pytest
import zmq

from descartes_fast import (
    AgentConfig,
    AgentError,
    AgentTimeout,
    CommandResponse,
    ControlCommand,
    ControlCommandType,
    ExecutionError,
    HealthCheckRequest,
    ListAgentsResponse,
    MessageTooLarge,
    NotFound,
    ProtocolError,
    SpawnFailed,
    SpawnRequest,
    SpawnResponse,
    UsageError,
    connect,
    serialize_zmq_message,
)
from scripted_peer import ScriptedAgent, ScriptedPeer, consent, refuse


async def test_lost_reply_is_a_timeout_and_the_connection_lives_on() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, request_timeout_secs=0.2) as client:
            peer.handler = lambda request: None
            with pytest.raises(AgentTimeout) as caught:
                await client.get_agent_status(agent.id)
            assert caught.value.agent_id == str(agent.id)
            assert isinstance(caught.value, TimeoutError)
            peer.handler = lambda request: NotImplemented
            assert await client.get_agent_status(agent.id) == "running"
            assert client.is_connected()


async def test_late_reply_is_dropped_and_counted() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        held: list[Any] = []

        def hold(request: Any) -> Any:
            if isinstance(request, HealthCheckRequest):
                return NotImplemented
            if not held:
                held.append(request)
                return None
            return [peer.answer(held[0]), peer.answer(request)]

        async with connect(peer.endpoint, request_timeout_secs=0.2) as client:
            peer.handler = hold
            with pytest.raises(AgentTimeout):
                await client.get_agent_status(agent.id)
            assert await client.get_agent_status(agent.id) == "running"
            assert client.late_replies == 1


async def test_duplicate_and_foreign_replies_harm_nobody() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())

        def noisy(request: Any) -> Any:
            foreign = ListAgentsResponse(request_id="somebody-else", success=True)
            return [foreign, peer.answer(request), peer.answer(request)]

        async with connect(peer.endpoint) as client:
            peer.handler = noisy
            for _ in range(10):
                assert await client.get_agent_status(agent.id) == "running"
            await client.health_check()
            assert client.late_replies >= 20


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x93", b"\x91\xa5hello", b"\xff" * 1000])
async def test_garbage_is_counted_and_the_answer_behind_it_arrives(garbage: bytes) -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            peer.handler = lambda request: [garbage, peer.answer(request)]
            assert await client.get_agent_status(agent.id) == "running"
            assert client.broken_replies == 1


async def test_broken_answer_that_names_its_call_fails_it_at_once() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())

        def broken(request: Any) -> bytes:
            return serialize_zmq_message(consent(request))[:-1] + b"\xc1"

        async with connect(peer.endpoint) as client:
            peer.handler = broken
            async with asyncio.timeout(5):
                with pytest.raises(ProtocolError, match="broken"):
                    await client.get_agent_status(agent.id)


async def test_answer_of_another_type_is_a_protocol_error() -> None:
    with ScriptedPeer() as peer:
        async with connect(peer.endpoint) as client:
            peer.handler = lambda request: SpawnResponse(
                request_id=request.request_id, success=True
            )
            with pytest.raises(ProtocolError, match="SpawnResponse"):
                await client.list_remote_agents()


async def test_refusal_of_a_request_that_could_not_be_read_raises_its_code() -> None:
    with ScriptedPeer() as peer:
        async with connect(peer.endpoint) as client:
            peer.handler = lambda request: CommandResponse(
                request_id=request.request_id,
                agent_id=uuid4(),
                success=False,
                error="spawn_failed: not today",
            )
            with pytest.raises(SpawnFailed, match="not today"):
                await client.spawn_remote(AgentConfig(name="a"))


async def test_refusals_raise_what_their_code_says() -> None:
    agent_id = uuid4()
    with ScriptedPeer() as peer:
        async with connect(peer.endpoint) as client:
            with pytest.raises(NotFound) as caught:
                await client.pause_agent(agent_id)
            assert caught.value.agent_id == str(agent_id)
            peer.handler = lambda request: refuse(request, "Agent exploded: badly")
            with pytest.raises(ExecutionError, match="Agent exploded: badly"):
                await client.kill_agent(agent_id)
            peer.handler = lambda request: SpawnResponse(
                request_id=request.request_id, success=False, error="spawn_failed: no such program"
            )
            with pytest.raises(SpawnFailed, match="no such program"):
                await client.spawn_remote(AgentConfig(name="a"))


async def test_spawn_without_an_agent_in_the_answer_is_no_success() -> None:
    with ScriptedPeer() as peer:
        async with connect(peer.endpoint) as client:
            peer.handler = lambda request: SpawnResponse(
                request_id=request.request_id, success=True
            )
            with pytest.raises(AgentError):
                await client.spawn_remote(AgentConfig(name="a"))


async def test_cancelled_call_forgets_its_id() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        held: list[Any] = []
        seen = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold(request: Any) -> None:
            held.append(request)
            loop.call_soon_threadsafe(seen.set)

        async with connect(peer.endpoint) as client:
            peer.handler = hold
            call = asyncio.ensure_future(client.get_agent_status(agent.id))
            await seen.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            peer.handler = lambda request: [peer.answer(held[0]), peer.answer(request)]
            assert await client.get_agent_status(agent.id) == "running"
            assert client.late_replies == 1


async def test_many_calls_in_flight_get_each_its_own_answer() -> None:
    """Answers come in another order than the questions; the client has one connection."""
    with ScriptedPeer() as peer:
        agents = [peer.add(ScriptedAgent()) for _ in range(500)]
        for number, agent in enumerate(agents):
            agent.output[next(iter(agent.output))] = b"%d" % number
        held: list[Any] = []

        def shuffle(request: Any) -> Any:
            held.append(request)
            if len(held) < len(agents):
                return None
            return [peer.answer(each) for each in reversed(held)]

        async with connect(peer.endpoint) as client:
            peer.handler = shuffle
            answers = await asyncio.gather(*(client.read_agent_stdout(a.id) for a in agents))
            assert answers == [b"%d" % number for number in range(500)]


async def test_more_calls_than_the_socket_takes_all_arrive() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            calls = [client.get_agent_status(agent.id) for _ in range(15_000)]
            assert set(await asyncio.gather(*calls)) == {"running"}


async def test_request_goes_out_as_an_empty_frame_and_the_body() -> None:
    """What ROUTER and REP servers both take."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    replier = context.socket(zmq.REP)
    replier.set(zmq.LINGER, 0)
    port = replier.bind_to_random_port("tcp://127.0.0.1")
    scripted = ScriptedPeer()
    scripted_answer = scripted.answer
    scripted.close()

    def serve() -> None:
        from descartes_fast import deserialize_zmq_message

        for _ in range(2):
            request = deserialize_zmq_message(replier.recv())
            replier.send(serialize_zmq_message(scripted_answer(request)))

    serving = asyncio.create_task(asyncio.to_thread(serve))
    async with connect(f"tcp://127.0.0.1:{port}") as client:
        assert await client.list_remote_agents() == []
    await serving
    replier.close()
    context.term()
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_own_request_id_is_sent_and_may_be_used_again() -> None:
    with ScriptedPeer() as peer:
        async with connect(peer.endpoint, request_timeout_secs=0.2) as client:
            peer.handler = lambda request: None
            with pytest.raises(AgentTimeout):
                await client.spawn_remote(AgentConfig(name="a"), request_id="mine")
            peer.handler = lambda request: NotImplemented
            await client.spawn_remote(AgentConfig(name="a"), request_id="mine")
            spawns = [r for r in peer.requests if isinstance(r, SpawnRequest)]
            assert [spawn.request_id for spawn in spawns] == ["mine", "mine"]


async def test_message_over_the_limit_is_refused_before_it_is_sent() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            with pytest.raises(MessageTooLarge):
                await client.write_agent_stdin(agent.id, b"x" * (11 * 1024 * 1024))
            with pytest.raises(MessageTooLarge):
                await client.spawn_remote(AgentConfig(task="x" * (11 * 1024 * 1024)))
            assert await client.get_agent_status(agent.id) == "running"
            assert peer.count(SpawnRequest) == 0


async def test_stdin_that_is_text_goes_as_text_and_other_bytes_as_numbers() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            await client.write_agent_stdin(agent.id, "grüß\n".encode())
            await client.write_agent_stdin(agent.id, b"\xff\x00", close=True)
            await client.write_agent_stdin(agent.id, bytearray(b"x"))
            payloads = [
                request.payload
                for request in peer.requests
                if isinstance(request, ControlCommand)
                and request.command_type == ControlCommandType.WRITE_STDIN
            ]
            assert payloads == [
                {"data": "grüß\n"},
                {"data": [255, 0], "close": True},
                {"data": "x"},
            ]


@pytest.mark.parametrize("bad", ["", "nonsense", 7, None, b"bytes"])
async def test_what_names_no_agent_is_refused_and_not_sent(bad: Any) -> None:
    with ScriptedPeer() as peer:
        async with connect(peer.endpoint) as client:
            for call in (
                client.get_agent_status(bad),
                client.kill_agent(bad),
                client.read_agent_stdout(bad),
                client.wait_agent(bad),
                client.batch_control([bad], "kill"),
            ):
                with pytest.raises(UsageError):
                    await call
            assert peer.count(ControlCommand) == 0


async def test_agent_is_named_by_uuid_text_or_info() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            for name in (agent.id, str(agent.id), agent.id.hex, agent.info()):
                assert await client.get_agent_status(name) == "running"


@pytest.mark.parametrize(
    "mistake",
    [
        lambda client, agent: client.list_remote_agents("sleeping"),
        lambda client, agent: client.query_agent_output(agent, "stdin"),
        lambda client, agent: client.batch_control([agent], "explode"),
        lambda client, agent: client.signal_agent(agent, True),
        lambda client, agent: client.signal_agent(agent, 1.5),
        lambda client, agent: client.wait_agent(agent, 0),
        lambda client, agent: client.spawn_remote(AgentConfig(name="a"), timeout_secs=-1),
        lambda client, agent: client.spawn_remote(AgentConfig(name="a"), timeout_secs=math.inf),
        lambda client, agent: client.spawn_remote(AgentConfig(name="a"), timeout_secs=1e30),
        lambda client, agent: client.spawn_remote(AgentConfig(name="a"), metadata=5),
        lambda client, agent: client.send_action_to_agent(agent, "ping", None, math.inf),
        lambda client, agent: client.write_agent_stdin(agent, "text"),
        lambda client, agent: client.write_agent_stdin(agent, None),
        lambda client, agent: client.write_agent_stdin(agent, 5),
        lambda client, agent: client.write_agent_stdin(agent, [104, 300]),
        lambda client, agent: client.stream_agent_logs(agent, from_offset=-1),
        lambda client, agent: client.stream_agent_logs(agent, from_offset=True),
    ],
)
async def test_mistakes_in_arguments_are_usage_errors(mistake: Any) -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as client:
            with pytest.raises(UsageError):
                await mistake(client, agent.id)
            assert [type(request) for request in peer.requests] == [HealthCheckRequest]


@pytest.mark.parametrize(("given", "sent"), [(2.9, 3), (0.2, 1), (2, 2), (2.0, 2), (None, None)])
async def test_timeout_on_the_wire_is_never_less_than_the_one_given(given: Any, sent: Any) -> None:
    with ScriptedPeer() as peer:
        async with connect(peer.endpoint) as client:
            await client.spawn_remote(AgentConfig(name="a"), given)
            assert peer.requests[-1].timeout_secs == sent


async def test_answer_that_came_while_the_loop_was_held_up_is_not_a_timeout() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, request_timeout_secs=0.2) as client:
            call = asyncio.ensure_future(client.get_agent_status(agent.id))
            await asyncio.sleep(0)
            time.sleep(0.5)  # noqa: ASYNC251 (that is the fault)
            assert await call == "running"
