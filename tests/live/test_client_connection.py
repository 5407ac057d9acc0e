"""Connecting, losing the connection and getting it back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from descartes_fast import (
    AgentConfig,
    AgentStatus,
    AgentTimeout,
    CommunicationError,
    ControlCommand,
    ControlCommandType,
    HealthCheckRequest,
    ProtocolError,
    SpawnRequest,
    UsageError,
    ZmqAgentRunner,
    ZmqClient,
    ZmqRunnerConfig,
    connect,
)
from descartes_fast import connection as connection_module
from scripted_peer import ScriptedAgent, ScriptedPeer, until, until_async


def settings(**changes: Any) -> dict[str, Any]:
    """Short times, so that giving up can be waited for."""
    return {"reconnect_delay_secs": 0.1, "max_reconnect_attempts": 20, **changes}


async def test_client_implements_the_interface() -> None:
    assert isinstance(ZmqClient(), ZmqAgentRunner)


async def test_connected_is_the_truth_of_the_socket() -> None:
    with ScriptedPeer() as peer:
        client = ZmqClient(ZmqRunnerConfig(endpoint=peer.endpoint, reconnect_delay_secs=0.1))
        assert not client.is_connected()
        await client.connect()
        assert client.is_connected()
        peer.vanish(for_secs=0.3)
        await until(lambda: not client.is_connected())
        await until(client.is_connected)
        await client.disconnect()
        assert not client.is_connected()


async def test_no_server_is_a_communication_error_in_the_time_configured() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        client = ZmqClient(ZmqRunnerConfig(endpoint=endpoint, connection_timeout_secs=0.3))
        started = time.monotonic()
        with pytest.raises(CommunicationError, match="no server"):
            await client.connect()
        assert 0.2 < time.monotonic() - started < 2
        assert not client.is_connected()
        with pytest.raises(UsageError, match="connect"):
            await client.health_check()


async def test_no_server_without_reconnecting_fails_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        client = ZmqClient(ZmqRunnerConfig(endpoint=endpoint, auto_reconnect=False))
        started = time.monotonic()
        with pytest.raises(CommunicationError):
            await client.connect()
        assert time.monotonic() - started < 2


async def test_server_that_accepts_and_never_answers_is_told_apart() -> None:
    with ScriptedPeer() as peer:
        peer.handler = lambda request: None
        client = ZmqClient(ZmqRunnerConfig(endpoint=peer.endpoint, connection_timeout_secs=0.5))
        with pytest.raises(CommunicationError, match="does not answer"):
            await client.connect()


async def test_first_answer_that_is_lost_is_asked_for_again() -> None:
    with ScriptedPeer() as peer:
        lost: list[Any] = []

        def lose_first(request: Any) -> Any:
            if not lost:
                lost.append(request)
                return None
            return NotImplemented

        peer.handler = lose_first
        async with connect(peer.endpoint) as client:
            assert client.is_connected()


@pytest.mark.parametrize("endpoint", ["", "nonsense", "udp://h:1", "tcp://127.0.0.1:port"])
async def test_endpoint_that_is_none_is_a_usage_error(endpoint: str) -> None:
    client = ZmqClient()
    with pytest.raises(UsageError):
        await client.connect(endpoint)
    await client.disconnect()


async def test_disconnect_twice_and_connect_again() -> None:
    with ScriptedPeer() as peer, ScriptedPeer(server_id="other") as other:
        client = ZmqClient()
        await client.disconnect()
        await client.connect(peer.endpoint)
        await client.connect(peer.endpoint)
        with pytest.raises(UsageError, match=peer.endpoint):
            await client.connect(other.endpoint)
        await client.disconnect()
        await client.disconnect()
        await client.connect(other.endpoint)
        answer = await client.health_check()
        assert answer.metadata is not None
        assert answer.metadata["server_id"] == "other"
        await client.disconnect()


async def test_calls_in_flight_fail_when_the_client_disconnects() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        client = ZmqClient()
        await client.connect(peer.endpoint)
        peer.handler = lambda request: None
        call = asyncio.ensure_future(client.get_agent_status(agent.id))
        await until(lambda: peer.count(ControlCommand) == 1)
        await client.disconnect()
        with pytest.raises(CommunicationError, match="disconnected"):
            await call


async def test_cancelled_connect_leaves_nothing() -> None:
    with ScriptedPeer() as peer:
        peer.handler = lambda request: None
        client = ZmqClient()
        connecting = asyncio.ensure_future(client.connect(peer.endpoint))
        await until(lambda: peer.count(HealthCheckRequest) == 1)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        peer.handler = lambda request: NotImplemented
        await client.connect(peer.endpoint)
        await client.disconnect()


async def test_reads_in_flight_are_repeated_under_the_same_id_after_a_reconnect() -> None:
    with ScriptedPeer(features=None) as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **settings()) as client:
            peer.handler = lambda request: (
                NotImplemented if isinstance(request, HealthCheckRequest) else None
            )
            calls = asyncio.gather(client.get_agent_status(agent.id), client.list_remote_agents())
            await until(lambda: len(peer.requests) == 3)
            first = [request.request_id for request in peer.requests[1:]]
            peer.handler = lambda request: NotImplemented
            peer.vanish()
            status, listed = await calls
            assert status == "running"
            assert [info.id for info in listed] == [agent.id]
            assert [request.request_id for request in peer.requests[-2:]] == first


@pytest.mark.parametrize(("features", "repeated"), [("idempotent", True), (None, False)])
async def test_mutation_in_flight_is_repeated_only_where_that_is_safe(
    features: str | None, repeated: bool
) -> None:
    with ScriptedPeer(features=features) as peer:
        async with connect(peer.endpoint, **settings()) as client:
            peer.handler = lambda request: (
                NotImplemented if isinstance(request, HealthCheckRequest) else None
            )
            call = asyncio.ensure_future(client.spawn_remote(AgentConfig(name="once")))
            await until(lambda: peer.count(SpawnRequest) == 1)
            peer.handler = lambda request: NotImplemented
            peer.vanish()
            if repeated:
                await call
                spawns = [r for r in peer.requests if isinstance(r, SpawnRequest)]
                assert len(spawns) == 2
                assert spawns[0].request_id == spawns[1].request_id
            else:
                with pytest.raises(CommunicationError, match="may have been carried out"):
                    await call
                await until(client.is_connected)
                await client.health_check()
                assert peer.count(SpawnRequest) == 1


@pytest.mark.parametrize("changed", ["server_id", "journal_id"])
async def test_mutation_in_flight_is_not_repeated_to_who_does_not_know_it(changed: str) -> None:
    with ScriptedPeer() as peer:
        async with connect(peer.endpoint, **settings()) as client:
            peer.handler = lambda request: (
                NotImplemented if isinstance(request, HealthCheckRequest) else None
            )
            call = asyncio.ensure_future(client.spawn_remote(AgentConfig(name="once")))
            await until(lambda: peer.count(SpawnRequest) == 1)
            peer.handler = lambda request: NotImplemented
            setattr(peer, changed, "another")
            peer.vanish()
            with pytest.raises(CommunicationError, match="may have been carried out"):
                await call
            assert peer.count(SpawnRequest) == 1


async def test_mutation_made_while_disconnected_is_sent_when_the_server_is_back() -> None:
    with ScriptedPeer(features=None) as peer:
        async with connect(peer.endpoint, **settings()) as client:
            peer.vanish(for_secs=0.3)
            await until(lambda: not client.is_connected())
            await client.spawn_remote(AgentConfig(name="later"))
            assert peer.count(SpawnRequest) == 1


async def test_call_that_failed_with_the_connection_tells_whether_it_may_have_been_done() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **settings(max_reconnect_attempts=2)) as client:
            peer.handler = lambda request: (
                NotImplemented if isinstance(request, HealthCheckRequest) else None
            )
            sent = [
                asyncio.ensure_future(call)
                for call in (client.pause_agent(agent.id), client.get_agent_status(agent.id))
            ]
            await until(lambda: peer.count(ControlCommand) == 2)
            peer.vanish(for_secs=1.0)
            await until(lambda: not client.is_connected())
            unsent = asyncio.ensure_future(client.pause_agent(agent.id))
            words = [str(e) for e in await asyncio.gather(*sent, unsent, return_exceptions=True)]
            assert ["may have been carried out" in word for word in words] == [True, False, False]
            assert all("lost" in word for word in words)


async def test_timeout_names_the_operation_the_endpoint_and_the_doubt() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, request_timeout_secs=0.2) as client:
            peer.handler = lambda request: None

            async def words(call: Any) -> str:
                with pytest.raises(AgentTimeout) as caught:
                    await call
                return str(caught.value)

            answer = f"from {peer.endpoint} within 0.2 s"
            doubt = "; the request may have been carried out"
            assert (
                await words(client.pause_agent(agent.id)) == f"no answer to pause {answer}{doubt}"
            )
            assert await words(client.list_remote_agents()) == f"no answer to list_agents {answer}"


async def test_calls_fail_at_once_after_the_last_attempt_until_the_server_is_back() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        config = settings(max_reconnect_attempts=2)
        async with connect(peer.endpoint, **config) as client:
            peer.vanish(for_secs=1.0)
            await until(lambda: not client.is_connected())
            waiting = asyncio.ensure_future(client.get_agent_status(agent.id))
            with pytest.raises(CommunicationError, match="lost"):
                await waiting
            started = time.monotonic()
            with pytest.raises(CommunicationError, match="lost"):
                await client.get_agent_status(agent.id)
            assert time.monotonic() - started < 0.1

            def slow_to_say_who_it_is(request: Any) -> Any:
                if isinstance(request, HealthCheckRequest):
                    time.sleep(0.2)
                return NotImplemented

            peer.handler = slow_to_say_who_it_is
            await until(client.is_connected)
            assert await client.get_agent_status(agent.id) == "running"
            assert peer.count(HealthCheckRequest) >= 2


async def test_without_reconnecting_a_lost_connection_stays_lost() -> None:
    with ScriptedPeer() as peer:
        client = ZmqClient(ZmqRunnerConfig(endpoint=peer.endpoint, auto_reconnect=False))
        await client.connect()
        peer.vanish()
        await until(lambda: not client.is_connected())
        with pytest.raises(CommunicationError):
            await client.health_check()
        await client.disconnect()
        await until(lambda: peer.openings == 2)
        await client.connect()
        await client.health_check()
        await client.disconnect()


@pytest.mark.parametrize("version", ["2.0.0", "0.9.0"])
async def test_unknown_protocol_version_is_an_error_that_says_so(version: str) -> None:
    with ScriptedPeer(version=version) as peer, pytest.raises(ProtocolError, match=version):
        async with connect(peer.endpoint):
            raise AssertionError


async def test_another_server_than_the_expected_is_an_error_that_says_so() -> None:
    peer = ScriptedPeer(server_id="impostor")
    with peer, pytest.raises(CommunicationError, match="impostor"):
        async with connect(peer.endpoint, server_id="expected"):
            raise AssertionError


async def test_another_server_after_a_reconnect_gets_no_calls_until_the_right_one_is_back() -> None:
    with ScriptedPeer(server_id="right") as peer:
        config = settings(server_id="right")
        async with connect(peer.endpoint, **config) as client:
            peer.server_id = "wrong"
            peer.vanish()
            await until(lambda: peer.count(HealthCheckRequest) >= 2)

            async def error() -> str:
                try:
                    await client.spawn_remote(AgentConfig(name="a"), 0.3)
                except CommunicationError as error:
                    return str(error)
                return ""

            assert "'wrong'" in await error()
            assert peer.count(SpawnRequest) == 0
            peer.server_id = "right"
            await until_async(error, "")
            assert peer.count(SpawnRequest) == 1


async def test_heartbeat_checks_health_and_finds_a_dead_connection() -> None:
    """The server is there for TCP and does not answer: the client connects anew."""
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        config = settings(heartbeat_interval_secs=0.2)
        async with connect(peer.endpoint, **config) as client:
            await until(lambda: peer.count(HealthCheckRequest) >= 3)
            dead = peer.identities[0]
            peer.handler = lambda request: None if peer.identities[-1] == dead else NotImplemented
            call = asyncio.ensure_future(client.get_agent_status(agent.id))
            assert await call == "running"
            assert client.is_connected()


async def test_heartbeat_notices_that_the_server_was_replaced() -> None:
    with ScriptedPeer(server_id="right") as peer:
        config = settings(heartbeat_interval_secs=0.1, server_id="right")
        async with connect(peer.endpoint, **config) as client:
            peer.server_id = "wrong"

            async def fails() -> bool:
                try:
                    await client.list_remote_agents()
                except CommunicationError:
                    return True
                return False

            await until_async(fails, True)


async def test_heartbeat_can_be_turned_off() -> None:
    with ScriptedPeer() as peer:
        config = settings(heartbeat_interval_secs=0.05, enable_heartbeat=False)
        async with connect(peer.endpoint, **config):
            await asyncio.sleep(0.3)
            assert peer.count(HealthCheckRequest) == 1


async def test_exit_with_a_vanished_server_takes_no_linger() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        client = ZmqClient(ZmqRunnerConfig(endpoint=peer.endpoint))
        await client.connect()
        peer.handler = lambda request: None
        calls = [
            asyncio.ensure_future(client.write_agent_stdin(agent.id, b"x" * 100_000))
            for _ in range(200)
        ]
        await asyncio.sleep(0)
        peer.close()
        started = time.monotonic()
        await client.disconnect()
        assert time.monotonic() - started < 1
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, CommunicationError) for result in results)


async def test_two_clients_of_one_server_do_not_mix() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint) as one, connect(peer.endpoint) as two:
            answers = await asyncio.gather(
                *(client.get_agent_status(agent.id) for client in (one, two) * 100)
            )
            assert set(answers) == {"running"}
            assert one.late_replies == two.late_replies == 0
        gc.collect()


async def test_consuming_read_is_no_read_that_may_be_repeated() -> None:
    with ScriptedPeer(features=None) as peer:
        agent = peer.add(ScriptedAgent())
        async with connect(peer.endpoint, **settings()) as client:
            peer.handler = lambda request: (
                NotImplemented if isinstance(request, HealthCheckRequest) else None
            )
            call = asyncio.ensure_future(client.read_agent_stdout(agent.id))
            await until(lambda: peer.count(ControlCommand) == 1)
            assert peer.requests[-1].command_type == ControlCommandType.READ_STDOUT
            peer.handler = lambda request: NotImplemented
            peer.vanish()
            with pytest.raises(CommunicationError):
                await call


async def test_disconnect_while_another_task_connects_tells_it() -> None:
    with ScriptedPeer() as peer:
        peer.handler = lambda request: None
        client = ZmqClient()
        connecting = asyncio.ensure_future(client.connect(peer.endpoint))
        also = asyncio.ensure_future(client.connect(peer.endpoint))
        await until(lambda: peer.count(HealthCheckRequest) == 1)
        await client.disconnect()
        for task in (connecting, also):
            with pytest.raises(CommunicationError, match="disconnected"):
                await task


async def test_endless_times_are_taken() -> None:
    with ScriptedPeer() as peer:
        agent = peer.add(ScriptedAgent(AgentStatus.COMPLETED))
        times = {"request_timeout_secs": math.inf, "connection_timeout_secs": math.inf}
        async with connect(peer.endpoint, **times) as client:
            assert await client.get_agent_status(agent.id) == "completed"
            assert (await client.wait_agent(agent.id, math.inf)).status == "completed"


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process have so many file descriptors to open, and no more."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + count + 2, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts in /proc")
async def test_connecting_without_file_descriptors_is_an_error_that_says_so() -> None:
    with ScriptedPeer() as peer:
        client = ZmqClient(ZmqRunnerConfig(endpoint=peer.endpoint, connection_timeout_secs=1))
        for count in range(12):
            with descriptors_left(count), pytest.raises(CommunicationError, match="descriptors"):
                await client.connect()
        await client.connect()
        await client.disconnect()


async def test_failure_in_the_supervisor_is_reported_and_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    with ScriptedPeer() as peer:
        async with connect(peer.endpoint, **settings()) as client:
            with monkeypatch.context() as broken:
                broken.setattr(connection_module, "refusal", lambda *args, **kwargs: 1 / 0)
                peer.vanish()
                await until(lambda: bool(reported))
            await client.list_remote_agents()
    assert isinstance(reported[0], ZeroDivisionError)
