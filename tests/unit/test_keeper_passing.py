"""Descriptors beside frames: in order, closed on exec, and said to be lost when they are."""

from __future__ import annotations

import errno
import os
import resource
import socket
import sys
from collections.abc import Iterator

import pytest

from descartes_fast.server.keeper import passing
from descartes_fast.server.keeper.connection import Connection
from descartes_fast.server.keeper.loop import Loop
from descartes_fast.server.keeper.protocol import FrameReader

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.settimeout(5)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def connection(pair: tuple[socket.socket, socket.socket]) -> Iterator[Connection]:
    loop = Loop()
    connection = Connection(loop, pair[0], lambda *_: None, lambda _: None)
    yield connection
    connection.close()
    loop.close()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


def test_frames_and_descriptors_arrive_in_one_order(
    pair: tuple[socket.socket, socket.socket], connection: Connection
) -> None:
    """Also where the socket takes them piece by piece, and the sender has closed its own."""
    before = open_fds()
    pipes = [os.pipe() for _ in range(40)]
    for n, ends in enumerate(pipes):
        connection.send({"n": n, "padding": "x" * 20_000})
        connection.send({"n": n, "fds": ["read", "write"]}, ends)
        passing.close_all(ends)
    reader, arrivals, seen = FrameReader(), passing.Arrivals(), []
    while len(seen) < len(pipes):
        connection.flush()
        data, batches = passing.receive(pair[1], 10_000)
        arrivals.put(batches)
        for header, _ in reader.feed(data):
            named = arrivals.take(header)
            assert named is not None
            if named:
                os.write(named["write"], b"%d" % header["n"])
                assert os.read(named["read"], 10) == b"%d" % header["n"]
                assert not os.get_inheritable(named["read"])
                seen.append(header["n"])
                passing.close_all(named.values())
    assert seen == list(range(len(pipes)))
    assert open_fds() == before


def test_receiver_at_its_limit_learns_that_descriptors_were_lost(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sent = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    passing.send(pair[0], b"x", sent)
    passing.close_all(sent)
    try:
        # No number below what is open already: none is free.
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(sent), hard))
        data, batches = passing.receive(pair[1], 10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert data == b"x"
    arrivals = passing.Arrivals()
    arrivals.put(batches)
    assert arrivals.take({"fds": ["a", "b", "c"]}) is None


def test_lost_batch_does_not_shift_the_next(pair: tuple[socket.socket, socket.socket]) -> None:
    arrivals = passing.Arrivals()
    first, second = os.dup(0), os.dup(0)
    arrivals.put([[first], [second]])
    assert arrivals.take({"op": "plain"}) == {}
    assert arrivals.take({"fds": ["a", "b"]}) is None
    assert arrivals.take({"fds": ["c"]}) == {"c": second}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)
    os.close(second)


def test_connection_that_is_lost_closes_what_was_under_way(
    pair: tuple[socket.socket, socket.socket], connection: Connection
) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    before = open_fds()
    for _ in range(5):
        connection.send({"fds": ["null"]}, [null])
    assert open_fds() == before + 5
    connection.close()
    assert open_fds() == before - 1
    os.close(null)


def test_reply_says_that_nothing_could_be_duplicated(
    pair: tuple[socket.socket, socket.socket], connection: Connection
) -> None:
    connection.send({"re": 1, "fds": ["gone"]}, [9999])
    connection.flush()
    data, batches = passing.receive(pair[1], 1000)
    assert FrameReader().feed(data) == [({"re": 1, "fds": []}, b"")]
    assert batches == []


def test_descriptors_wait_while_too_many_are_under_way(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop()
    connection = Connection(loop, pair[0], lambda *_: None, lambda _: None)
    real, refusals = passing.send, [errno.ETOOMANYREFS] * 3

    def send(peer: socket.socket, data: bytearray, descriptors: list[int]) -> int:
        if refusals:
            raise OSError(refusals.pop(), "too many references")
        return real(peer, data, descriptors)

    monkeypatch.setattr(passing, "send", send)
    connection.send({"n": 1, "fds": ["a"]}, [0])
    connection.send({"n": 2})
    turns = 0
    connection.flush()
    while connection.has_unsent:
        loop.turn()
        turns += 1
    assert turns <= 4, "the loop spins"
    data, batches = passing.receive(pair[1], 1000)
    assert [header["n"] for header, _ in FrameReader().feed(data)] == [1, 2]
    assert len(batches) == len(batches[0]) == 1
    passing.close_all(batches[0])
    connection.close()
    loop.close()
