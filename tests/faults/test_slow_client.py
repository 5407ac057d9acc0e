"""A client stops reading: its replies are bounded and counted, and nobody else notices."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from descartes_fast import HealthCheckRequest
from faults.processes import memory_bytes
from raw_peers import command_of, new_id, peer

if TYPE_CHECKING:
    from conftest import StartServer

# Asks without end for what fills a reply, reads nothing, and says when it has begun.
GREEDY = """
import sys, uuid, zmq
from descartes_fast import ControlCommand, ControlCommandType, serialize_zmq_message
endpoint, agent = sys.argv[1], uuid.UUID(sys.argv[2])
context = zmq.Context()
socket = context.socket(zmq.DEALER)
socket.set(zmq.RCVHWM, 10)
socket.connect(endpoint)
number = 0
while True:
    number += 1
    body = serialize_zmq_message(ControlCommand(
        request_id=str(number), agent_id=agent, command_type=ControlCommandType.READ_STDOUT,
        payload={"offset": 0, "max_bytes": 65536},
    ))
    socket.send_multipart([b"", body])
    if number == 1:
        print("begun", flush=True)
    if number == 3000:
        print("sent", flush=True)
"""

QUEUE_BYTES = 2_000_000


async def test_frozen_client_costs_a_bounded_queue_and_nobody_else_waits(
    start_server: StartServer,
) -> None:
    server = await start_server(client_queue_bytes=QUEUE_BYTES)
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("head -c 65536 /dev/zero")
        await asking.end(agent)
        before = memory_bytes()
        frozen = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-c", GREEDY, server.endpoint, str(agent.id)],
            stdout=subprocess.PIPE,
        )
        with frozen:
            assert frozen.stdout is not None
            assert await asyncio.to_thread(frozen.stdout.readline) == b"begun\n"
            async with asyncio.timeout(30):
                while server.statistics().replies_dropped < 1000:
                    began = time.perf_counter()
                    response = await asking.ask(HealthCheckRequest(request_id=new_id()))
                    assert response.healthy
                    assert time.perf_counter() - began < 1.0
            frozen.send_signal(signal.SIGSTOP)
            # Replies of 87 kB: 256 in libzmq's queue, and as many as fit in ours.
            assert memory_bytes() - before < 256 * 90_000 + QUEUE_BYTES + 64_000_000
            response = await asking.ask(HealthCheckRequest(request_id=new_id()))
            assert response.healthy
            frozen.kill()
    assert server.statistics().replies_sent > 0


async def test_replies_to_a_client_that_has_gone_are_dropped_and_counted(
    start_server: StartServer,
) -> None:
    server = await start_server()
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("read x; echo done")
        async with peer(server.endpoint) as leaving:
            waiting = {"wait_secs": 8}
            for _ in range(10):
                await leaving.send(command_of(agent.id, "read_stdout", {**waiting, "offset": 0}))
            await leaving.data(agent, "get_status")
        async with asyncio.timeout(5):
            while server.statistics().clients > 1:  # noqa: ASYNC110  (no event tells)
                await asyncio.sleep(0.01)
        await asking.data(agent, "write_stdin", {"close": True})
        assert await asking.read_to_end(agent) == "done\n"
        assert server.statistics().replies_dropped == 10


async def test_slow_client_gets_all_its_replies_once_it_reads(start_server: StartServer) -> None:
    server = await start_server()
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("head -c 20000 /dev/zero")
        await asking.end(agent)
        sent = [
            await asking.send(command_of(agent.id, "read_stdout", {"offset": 0}))
            for _ in range(1000)
        ]
        replies = [await asking.reply(request_id) for request_id in sent]
        assert all(reply.data["bytes"] == 20000 for reply in replies)
    assert server.statistics().replies_dropped == 0
