"""The blocking client: the same operations, from any thread, and an exit that never hangs."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from descartes_fast import (
    AgentConfig,
    AgentError,
    AgentInfo,
    AgentStatus,
    AgentTimeout,
    BatchControlCommand,
    BatchControlResponse,
    CommunicationError,
    ControlCommand,
    CustomActionRequest,
    NotFound,
    OutputQueryRequest,
    OutputQueryResponse,
    UsageError,
    ZmqAgentRunner,
    ZmqRunnerConfig,
    sync,
)
from descartes_fast.client import ZmqClient as AsyncClient
from scripted_peer import ScriptedAgent, ScriptedPeer, consent


@pytest.fixture
def peer() -> Iterator[ScriptedPeer]:
    with ScriptedPeer() as peer:
        yield peer


def test_blocking_client_has_every_method_with_the_same_arguments() -> None:
    for name, method in inspect.getmembers(AsyncClient, inspect.isfunction):
        if name.startswith("_"):
            continue
        blocking = getattr(sync.ZmqClient, name)
        assert list(inspect.signature(blocking).parameters) == list(
            inspect.signature(method).parameters
        ), name


def test_client_takes_just_what_the_interface_says() -> None:
    for name, method in inspect.getmembers(ZmqAgentRunner, inspect.isfunction):
        if not name.startswith("_"):
            declared = inspect.signature(method).parameters
            actual = inspect.signature(getattr(AsyncClient, name)).parameters
            assert list(actual.values()) == list(declared.values()), name


def test_operations_block_and_return(peer: ScriptedPeer) -> None:
    agent = peer.add(ScriptedAgent())
    peer.write(agent, b"hello", lose=True)
    with sync.connect(peer.endpoint) as client:
        assert client.is_connected()
        assert client.health_check().healthy
        assert client.get_agent_status(agent.id) == "running"
        assert [info.id for info in client.list_remote_agents()] == [agent.id]
        assert client.read_agent_stdout(agent.id) == b"hello"
        assert client.read_agent_stdout(agent.id) is None
        client.pause_agent(agent.id)
        client.write_agent_stdin(agent.id, b"x")
        spawned = client.spawn_remote(AgentConfig(name="a"))
        assert isinstance(spawned, AgentInfo)
        with pytest.raises(NotFound):
            client.kill_agent(ScriptedAgent().id)
    assert not client.is_connected()
    with pytest.raises(UsageError):
        client.health_check()


def test_subscriptions_are_blocking_iterators(peer: ScriptedPeer) -> None:
    agent = peer.add(ScriptedAgent())
    with sync.connect(peer.endpoint) as client:
        with client.subscribe_status_updates(agent.id) as updates:
            assert next(updates).status == "running"
            with pytest.raises(AgentTimeout):
                updates.next(0.05)
            with client.stream_agent_logs(agent.id, from_offset=0) as logs:
                peer.write(agent, b"one")
                peer.change(agent, AgentStatus.COMPLETED, exit_code=0)
                assert b"".join(message.data for message in logs) == b"one"
            assert [update.status for update in updates] == ["completed"]
        assert client.wait_agent(agent.id, 5).exit_code == 0


def test_many_threads_share_one_client(peer: ScriptedPeer) -> None:
    agent = peer.add(ScriptedAgent())
    results: list[str] = []
    with sync.connect(peer.endpoint) as client:

        def work() -> None:
            results.extend(client.get_agent_status(agent.id) for _ in range(50))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == ["running"] * 400


def test_spawn_many_returns_each_result(peer: ScriptedPeer) -> None:
    seen: list[int] = []
    with sync.connect(peer.endpoint) as client:
        results: list[AgentInfo | AgentError] = client.spawn_many(
            [AgentConfig(name=str(n)) for n in range(20)],
            progress=lambda done, total: seen.append(done),
        )
    assert all(isinstance(result, AgentInfo) for result in results)
    assert seen == list(range(1, 21))


def test_call_on_the_clients_own_thread_is_refused_instead_of_hanging(
    peer: ScriptedPeer,
) -> None:
    with sync.connect(peer.endpoint) as client:
        with pytest.raises(UsageError, match="own thread"):
            client.spawn_many(
                [AgentConfig(name="a")], progress=lambda done, total: client.health_check() and None
            )
        assert client.health_check().healthy


async def test_call_inside_a_running_loop_just_blocks(peer: ScriptedPeer) -> None:
    with sync.connect(peer.endpoint) as client:
        assert client.health_check().healthy
        await asyncio.sleep(0)
        assert client.health_check().healthy


def test_closing_from_another_thread_wakes_who_waits(peer: ScriptedPeer) -> None:
    agent = peer.add(ScriptedAgent())
    client = sync.ZmqClient()
    client.connect(peer.endpoint)
    stream = client.stream_agent_logs(agent.id)
    outcomes: list[object] = []

    def wait_for_end() -> None:
        try:
            client.wait_agent(agent.id)
        except CommunicationError as error:
            outcomes.append(error)

    threads = [
        threading.Thread(target=wait_for_end),
        threading.Thread(target=lambda: outcomes.append(list(stream))),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    client.disconnect()
    for thread in threads:
        thread.join(2)
    assert time.monotonic() - started < 2
    assert len(outcomes) == 2
    client.disconnect()
    stream.close()


def test_disconnect_and_connect_again(peer: ScriptedPeer) -> None:
    client = sync.ZmqClient()
    for _ in range(3):
        client.connect(peer.endpoint)
        assert client.health_check().healthy
        client.disconnect()


def test_failed_connect_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(CommunicationError):
        sync.ZmqClient(ZmqRunnerConfig(connection_timeout_secs=0.2)).connect("tcp://127.0.0.1:9")
    assert threading.active_count() == before


def test_client_that_is_dropped_ends_its_thread(peer: ScriptedPeer) -> None:
    before = threading.active_count()
    client = sync.ZmqClient()
    client.connect(peer.endpoint)
    assert threading.active_count() == before + 1
    del client
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "end", ["", "raise SystemExit(0)", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"]
)
def test_interpreter_exit_does_not_hang(peer: ScriptedPeer, end: str) -> None:
    """Not closed, with a subscription open, and a call in flight on another thread."""
    agent = peer.add(ScriptedAgent())
    program = f"""
import threading, descartes_fast.sync as sync
client = sync.ZmqClient()
client.connect({peer.endpoint!r})
stream = client.stream_agent_logs({str(agent.id)!r})
threading.Thread(target=lambda: client.wait_agent({str(agent.id)!r}), daemon=True).start()
print(client.health_check().healthy, flush=True)
{end}
"""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        timeout=20,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert done.stdout == b"True\n"
    assert time.monotonic() - started < 5
    assert b"Fatal" not in done.stderr


def test_interrupt_leaves_the_call_and_the_client_usable(peer: ScriptedPeer) -> None:
    agent = peer.add(ScriptedAgent())
    program = f"""
import os, signal, threading, time, descartes_fast.sync as sync
with sync.connect({peer.endpoint!r}) as client:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        client.wait_agent({str(agent.id)!r})
    except KeyboardInterrupt:
        print(client.health_check().healthy)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"True\n", b"")


def test_every_other_operation_passes_its_arguments_on(peer: ScriptedPeer) -> None:
    agent = peer.add(ScriptedAgent())
    with sync.connect(peer.endpoint) as client:
        assert client.config.endpoint == peer.endpoint
        assert client.late_replies == client.broken_replies == 0
        client.resume_agent(agent.id)
        client.stop_agent(agent.id, grace_secs=1)
        client.signal_agent(agent.id, "SIGINT")
        client.pause_agent(agent.id, mode="cooperative")
        client.control_agent(agent.id, "get_status", {"a": 1}, 5, request_id="mine")
        assert client.read_agent_stderr(agent.id, max_bytes=10) is None
        found = client.get_remote_agent(agent.info())
        assert found is not None
        sent = {r.command_type.value: r for r in peer.requests if isinstance(r, ControlCommand)}
        assert sent["stop"].payload == {"grace_secs": 1}
        assert sent["signal"].payload == {"signal": "SIGINT"}
        assert sent["pause"].payload == {"mode": "cooperative"}
        assert sent["read_stderr"].payload["max_bytes"] == 10

        def answer(request: Any) -> Any:
            if isinstance(request, BatchControlCommand):
                return BatchControlResponse(
                    request_id=request.request_id, success=True, results=[], successful=0, failed=0
                )
            if isinstance(request, CustomActionRequest):
                return consent(request, request.params)
            if isinstance(request, OutputQueryRequest):
                return OutputQueryResponse(
                    request_id=request.request_id,
                    agent_id=request.agent_id,
                    success=True,
                    lines=[f"{request.filter} {request.limit} {request.offset}"],
                )
            return NotImplemented

        peer.handler = answer
        assert client.batch_control([agent.id], "kill").success
        assert client.send_action_to_agent(agent.id, "echo", {"a": 1}, 5).data == {"a": 1}
        assert list(client.query_agent_output(agent.id, "both", "x", 1, 2).lines) == ["x 1 2"]
