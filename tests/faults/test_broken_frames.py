"""Messages in no known layout, and bytes that are no message: counted, and nobody is harmed."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
import zmq

from descartes_fast import CommandResponse, HealthCheckRequest
from faults.processes import memory_bytes
from raw_peers import GREETING, Peer, new_id, peer, vectors

if TYPE_CHECKING:
    from conftest import StartServer
    from descartes_fast.server import ZmqAgentServer

VECTORS = vectors()


@pytest.fixture
async def asking(server: ZmqAgentServer) -> AsyncIterator[Peer]:
    async with peer(server.endpoint) as connected:
        yield connected


async def still_serves(asking: Peer) -> None:
    """Ask on the same connection: it lives on, and what was sent before has been taken."""
    response = await asking.ask(HealthCheckRequest(request_id=new_id()))
    assert response.healthy


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([b""], id="no-body"),
        pytest.param([b"", b""], id="empty-body"),
        pytest.param([b"x"] * 200, id="200-frames"),
        pytest.param([b""] * 200, id="200-empty-frames"),
        pytest.param([b"x" * 5000, b"", b"body"], id="long-envelope"),
        pytest.param([b"", b"\xc1"], id="no-messagepack"),
        pytest.param([b"", b"\x91\xa7unknown"], id="unknown-tag"),
        pytest.param([b"", VECTORS["status_update/minimal"]], id="a-publication"),
        pytest.param([b"", VECTORS["log_stream/ascii"]], id="a-log"),
    ],
)
async def test_message_without_readable_request_is_dropped_and_counted(
    server: ZmqAgentServer, asking: Peer, frames: list[bytes]
) -> None:
    await asking.socket.send_multipart(frames)
    await still_serves(asking)
    assert server.statistics().malformed == 1
    assert server.statistics().errors == 0


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(VECTORS["spawn_request/minimal"][:-1], id="cut"),
        pytest.param(VECTORS["spawn_request/minimal"] + b"\0", id="trailing-byte"),
        pytest.param(
            msgpack.packb(["list_agents_request", "0b7e2c1e-8d8e-4a1d-9d6a-3f6f6b1c2d3e", "bad"]),
            id="no-such-status",
        ),
        pytest.param(
            msgpack.packb(
                ["control_command", "0b7e2c1e-8d8e-4a1d-9d6a-3f6f6b1c2d3e", b"x", "pause"]
            ),
            id="no-such-id",
        ),
        pytest.param(VECTORS["list_agents_response/empty"], id="a-response"),
    ],
)
async def test_broken_message_with_a_request_id_is_refused_as_invalid(
    server: ZmqAgentServer, asking: Peer, body: bytes
) -> None:
    await asking.socket.send_multipart([b"", body])
    reply = await asking.reply("0b7e2c1e-8d8e-4a1d-9d6a-3f6f6b1c2d3e")
    assert isinstance(reply, CommandResponse)
    assert (reply.success, reply.agent_id.int) == (False, 0)
    assert (reply.error or "").startswith("invalid: ")
    await still_serves(asking)
    assert server.statistics().errors == 1


async def test_every_truncation_and_many_flips_of_a_request_leave_the_server_alive(
    server: ZmqAgentServer, asking: Peer
) -> None:
    body = VECTORS["control_command/write_stdin"]
    for length in range(1, len(body)):
        await asking.socket.send_multipart([b"", body[:length]])
    for position in range(len(body)):
        flipped = bytearray(body)
        flipped[position] ^= 0xFF
        await asking.socket.send_multipart([b"", bytes(flipped)])
    await still_serves(asking)
    statistics = server.statistics()
    assert statistics.malformed + statistics.errors == 2 * len(body) - 1


async def test_identity_that_is_taken_is_not_given_to_another(server: ZmqAgentServer) -> None:
    context: Any = zmq.Context()
    first, second = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
    try:
        for dealer, patience_ms in ((first, 10_000), (second, 300)):
            dealer.set(zmq.ROUTING_ID, b"the same")
            dealer.set(zmq.RCVTIMEO, patience_ms)
        ask = [b"", VECTORS["health_check_request"]]

        def talk() -> tuple[bool, bool]:
            first.connect(server.endpoint)
            first.send_multipart(ask)
            served = bool(first.recv_multipart())
            second.connect(server.endpoint)
            second.send_multipart(ask)
            try:
                second.recv_multipart()
            except zmq.Again:
                return served, False
            return served, True

        assert await asyncio.to_thread(talk) == (True, False)
    finally:
        first.close(linger=0)
        second.close(linger=0)
        context.term()


# What follows the greeting.
READY = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
READY_OF_SUBSCRIBER = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB"
ENORMOUS = (2**62, 2**63 - 1, 2**64 - 1, 64 * 1024 * 1024)


@pytest.mark.parametrize(
    ("endpoint", "ready", "sizes"),
    [
        pytest.param("endpoint", READY, (*ENORMOUS, 10 * 1024 * 1024 + 5000), id="command"),
        pytest.param("pub_endpoint", READY_OF_SUBSCRIBER, (*ENORMOUS, 267), id="subscription"),
    ],
)
async def test_frame_that_claims_an_enormous_size_is_cut_off_and_memory_stays_flat(
    start_server: StartServer, endpoint: str, ready: bytes, sizes: tuple[int, ...]
) -> None:
    server = await start_server(endpoint="tcp://127.0.0.1:0", pub_endpoint="tcp://127.0.0.1:0")
    host, _, port = getattr(server, endpoint).removeprefix("tcp://").rpartition(":")
    before = memory_bytes()
    for size in sizes:
        reader, writer = await asyncio.open_connection(host, int(port), family=socket.AF_INET)
        async with asyncio.timeout(5):
            writer.write(GREETING + ready)
            await reader.readexactly(len(GREETING))
            flag, length = await reader.readexactly(2)
            assert (flag, (await reader.readexactly(length))[:6]) == (4, b"\x05READY")
            writer.write(b"\x02" + struct.pack(">Q", size) + b"\1" * 1000)
            try:
                while await reader.read(65536):
                    pass
            except ConnectionResetError:
                pass
        writer.close()
    assert memory_bytes() - before < 4_000_000
    async with peer(server.endpoint) as asking:
        await still_serves(asking)
