"""A peer connects and says nothing, or stops in the middle of its handshake."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from descartes_fast import HealthCheckRequest
from raw_peers import GREETING, new_id, peer

if TYPE_CHECKING:
    from conftest import StartServer


@pytest.mark.parametrize(
    ("which", "words"),
    [
        pytest.param("endpoint", b"", id="commands-nothing"),
        pytest.param("pub_endpoint", b"", id="publications-nothing"),
        pytest.param("endpoint", GREETING[:10], id="part-of-a-greeting"),
        pytest.param("endpoint", GREETING, id="greeting-without-ready"),
    ],
)
async def test_peer_that_does_not_finish_its_handshake_is_closed_within_two_seconds(
    start_server: StartServer, which: str, words: bytes
) -> None:
    server = await start_server(endpoint="tcp://127.0.0.1:0", pub_endpoint="tcp://127.0.0.1:0")
    host, _, port = getattr(server, which).removeprefix("tcp://").rpartition(":")
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(words)
        async with asyncio.timeout(4):
            try:
                while await reader.read(1000):
                    pass
            except ConnectionResetError:
                pass
        assert time.monotonic() - began < 2.0
        async with peer(server.endpoint) as asking:
            response = await asking.ask(HealthCheckRequest(request_id=new_id()))
            assert response.healthy
    finally:
        writer.close()


async def test_crowd_of_silent_peers_keeps_nobody_out(start_server: StartServer) -> None:
    server = await start_server(endpoint="tcp://127.0.0.1:0")
    host, _, port = server.endpoint.removeprefix("tcp://").rpartition(":")
    crowd = [await asyncio.open_connection(host, int(port)) for _ in range(200)]
    async with peer(server.endpoint) as asking:
        response = await asking.ask(HealthCheckRequest(request_id=new_id()))
        assert response.healthy
        async with asyncio.timeout(5):
            while server.statistics().clients > 1:  # noqa: ASYNC110  (no event tells)
                await asyncio.sleep(0.02)
    for _, writer in crowd:
        writer.close()


async def test_clients_above_the_limit_are_turned_away_until_there_is_room(
    start_server: StartServer,
) -> None:
    server = await start_server(max_clients=2)
    async with peer(server.endpoint) as first, peer(server.endpoint) as second:
        for asking in (first, second):
            assert (await asking.ask(HealthCheckRequest(request_id=new_id()))).healthy
        async with peer(server.endpoint) as third:
            waiting = await third.send(HealthCheckRequest(request_id=new_id()))
            async with asyncio.timeout(5):
                while not server.statistics().refused_clients:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert (await first.ask(HealthCheckRequest(request_id=new_id()))).healthy
            second.socket.close(linger=0)
            # It goes on trying by itself, and is let in now.
            assert (await third.reply(waiting)).healthy
