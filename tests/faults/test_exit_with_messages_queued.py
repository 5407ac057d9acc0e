"""The peer is gone or frozen, and messages wait for it: every exit takes two seconds at most."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from descartes_fast import AgentConfig, CommunicationError, sync
from descartes_fast import connect as connect_client
from descartes_fast.client import ZmqClient
from faults.server_process import ServerProcess, server_process
from raw_peers import peer

if TYPE_CHECKING:
    from conftest import StartServer

EXIT_SECS = 2.0
MIB = 1024 * 1024

# What happens to the peer: its process is stopped, and its sockets with it, or it is no more.
FATES = [signal.SIGSTOP, signal.SIGKILL]

pytestmark = pytest.mark.leaves_orphans  # the keepers of killed servers, which end by themselves


@pytest.fixture
def remote() -> Iterator[ServerProcess]:
    """A server that a test may freeze or kill."""
    with server_process(tcp=True) as started:
        yield started


@contextlib.contextmanager
def exits_in_time() -> Iterator[None]:
    began = time.perf_counter()
    yield
    assert time.perf_counter() - began < EXIT_SECS


async def queue_requests(client: ZmqClient) -> list[asyncio.Task[Any]]:
    """Start calls that carry more than the kernel's buffers take, and let them be sent."""
    config = AgentConfig(model_backend="sh", task="true", context="x" * MIB)
    calls = [asyncio.create_task(client.spawn_remote(config)) for _ in range(50)]
    await asyncio.sleep(0.1)
    return calls


@pytest.mark.parametrize("fate", FATES)
async def test_client_leaves_a_server_that_is_frozen_or_gone(
    remote: ServerProcess, fate: signal.Signals
) -> None:
    client = ZmqClient()
    await client.connect(remote.endpoint)
    await client.subscribe_status_updates()
    await client.stream_agent_logs()
    remote.process.send_signal(fate)
    calls = await queue_requests(client)
    with exits_in_time():
        await client.disconnect()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {CommunicationError}


@pytest.mark.parametrize("fate", FATES)
def test_blocking_client_leaves_a_server_that_is_frozen_or_gone(
    remote: ServerProcess, fate: signal.Signals
) -> None:
    client = sync.ZmqClient()
    client.connect(remote.endpoint)
    client.subscribe_status_updates()
    remote.process.send_signal(fate)
    config = AgentConfig(model_backend="sh", task="true", context="x" * MIB)
    with ThreadPoolExecutor(20) as threads:
        calls = [threads.submit(client.spawn_remote, config) for _ in range(20)]
        assert not wait(calls, timeout=0.1).done
        with exits_in_time():
            client.disconnect()
        assert {type(call.exception(EXIT_SECS)) for call in calls} == {CommunicationError}


# Asks until nothing more can be sent, says so, and waits to be told to end.
PROGRAM = """
import asyncio, sys, threading
from descartes_fast import AgentConfig, connect, sync

config = AgentConfig(model_backend="sh", task="x" * 1000000)

async def asynchronous(endpoint):
    async with connect(endpoint) as client:
        print("connected", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        calls = [asyncio.ensure_future(client.spawn_remote(config)) for _ in range(50)]
        await asyncio.sleep(0.1)
        print("sent", flush=True)
        raise SystemExit

def blocking(endpoint):
    client = sync.ZmqClient()
    client.connect(endpoint)
    print("connected", flush=True)
    sys.stdin.readline()
    for _ in range(20):
        threading.Thread(target=client.spawn_remote, args=(config,), daemon=True).start()
    threading.Event().wait(0.1)
    print("sent", flush=True)

kind, endpoint = sys.argv[1:]
asyncio.run(asynchronous(endpoint)) if kind == "asynchronous" else blocking(endpoint)
"""


@pytest.mark.parametrize("kind", ["asynchronous", "blocking"])
def test_interpreter_with_requests_queued_ends(remote: ServerProcess, kind: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind, remote.endpoint],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == b"connected\n"
        remote.process.send_signal(signal.SIGSTOP)
        program.stdin.write(b"\n")
        program.stdin.flush()
        assert program.stdout.readline() == b"sent\n"
        with exits_in_time():
            program.wait(timeout=20)


# Asks for what fills a reply and for everything that is published, and reads none of it.
DEAF = """
import sys, time, uuid, zmq
from descartes_fast import ControlCommand, ControlCommandType, serialize_zmq_message
endpoint, pub_endpoint, agent = sys.argv[1], sys.argv[2], uuid.UUID(sys.argv[3])
context = zmq.Context()
listener = context.socket(zmq.SUB)
listener.set(zmq.RCVHWM, 1)
listener.connect(pub_endpoint)
listener.subscribe(b"")
asker = context.socket(zmq.DEALER)
asker.set(zmq.RCVHWM, 1)
asker.connect(endpoint)
for number in range(2000):
    body = serialize_zmq_message(ControlCommand(
        request_id=f"{sys.argv[4]}-{number}", agent_id=agent,
        command_type=ControlCommandType.READ_STDOUT, payload={"offset": 0, "max_bytes": 65536},
    ))
    asker.send_multipart([b"", body])
print("asked", flush=True)
time.sleep(60)
"""


@contextlib.asynccontextmanager
async def deaf_peer(*words: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    process = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", DEAF, *words], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"asked\n"
        yield process
        process.kill()


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
async def test_server_leaves_clients_that_are_frozen_or_gone(
    start_server: StartServer, fate: signal.Signals, scheme: str
) -> None:
    endpoints = {"endpoint": "tcp://127.0.0.1:0", "pub_endpoint": "tcp://127.0.0.1:0"}
    server = await start_server(**endpoints if scheme == "tcp" else {})
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("head -c 70000 /dev/zero; exec sleep 60")
        await asking.data(agent, "read_stdout", {"offset": 65535, "wait_secs": 5})
        words = (server.endpoint, server.pub_endpoint, str(agent.id), uuid4().hex)
        async with deaf_peer(*words) as deaf:
            await asking.data(agent, "get_status")  # served behind what the other has asked
            deaf.send_signal(fate)
            flood = await asking.spawn("head -c 3000000 /dev/zero")
            await asking.end(flood)
            await asking.data(agent, "kill")
            await asking.end(agent)
            assert server.statistics().replies_sent > 100
            with exits_in_time():
                await server.aclose()


async def test_connection_attempt_to_nobody_is_given_up_at_once() -> None:
    connecting = asyncio.create_task(enter("tcp://127.0.0.1:9"))
    await asyncio.sleep(0.05)
    with exits_in_time():
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)


async def enter(endpoint: str) -> None:
    async with connect_client(endpoint):
        raise AssertionError("nobody listens there")
