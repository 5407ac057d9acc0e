"""What a server asks its keeper in one turn of the loop: all of it, in order, in few pieces."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator

import pytest

from descartes_fast.errors import CommunicationError
from descartes_fast.server.keeper.passing import close_all, receive
from descartes_fast.server.keeper.protocol import FrameReader
from descartes_fast.server.keeper_connection import KeeperConnection

COUNT = 300


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    # Not a stream, where there is another kind: what is sent together can be told then.
    kind = socket.SOCK_STREAM if sys.platform == "darwin" else socket.SOCK_SEQPACKET
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    yield ours, theirs
    theirs.close()


async def asked(connection: KeeperConnection, number: int, descriptors: list[int]) -> None:
    names = ["stdout"] * len(descriptors)
    with pytest.raises(CommunicationError):  # nobody answers
        await connection.ask("adopt", descriptors=descriptors, number=number, fds=names)


@pytest.mark.parametrize("with_descriptors", [(), (0,), (7, 8, 150)])
async def test_requests_of_one_turn_come_in_order_with_their_descriptors(
    pair: tuple[socket.socket, socket.socket], with_descriptors: tuple[int, ...]
) -> None:
    connection = KeeperConnection(pair[0], lambda header: None, lambda reason: None)
    null = os.open(os.devnull, os.O_RDONLY)
    asking = [
        asyncio.ensure_future(
            asked(connection, number, [null] if number in with_descriptors else [])
        )
        for number in range(COUNT)
    ]
    await asyncio.sleep(0)  # each asks, and waits
    await asyncio.sleep(0)  # what was held goes at the end of that turn
    pair[1].settimeout(5)
    headers = []
    batches = []
    pieces = 0
    reader = FrameReader()
    while len(headers) < COUNT:
        data, some = receive(pair[1], 1024 * 1024)
        headers += [header for header, _ in reader.feed(data)]
        batches += some
        pieces += 1
    connection.close()
    await asyncio.gather(*asking)
    os.close(null)
    for batch in batches:
        close_all(batch)
    assert [header["number"] for header in headers] == list(range(COUNT))
    named = [header["number"] for header in headers if header["fds"]]
    assert named == list(with_descriptors)
    assert [len(batch) for batch in batches] == [1] * len(with_descriptors)
    assert pieces < COUNT / 4
