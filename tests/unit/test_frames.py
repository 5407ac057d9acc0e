"""Whole messages through libzmq's functions and through pyzmq's: the same in both ways."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from descartes_fast._core.frames import LIBZMQ_FOUND, Frames
from descartes_fast.plain_frames import PlainFrames

Pair = tuple[Any, Any]

needs_libzmq = pytest.mark.skipif(not LIBZMQ_FOUND, reason="libzmq's functions are not found here")


@pytest.fixture(params=[pytest.param(Frames, marks=needs_libzmq), PlainFrames])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def sockets() -> Iterator[Pair]:
    with zmq.Context() as context, context.socket(zmq.PAIR) as here, context.socket(zmq.PAIR) as to:
        here.linger = to.linger = 0
        here.bind("inproc://frames")
        to.connect("inproc://frames")
        yield here, to


def test_messages_come_out_as_they_went_in(kind: Any, sockets: Pair) -> None:
    here, there = (kind(socket) for socket in sockets)
    sent = [(b"one",), (b"", b"\0" * 100_000, b""), (b"a", b"b", b"c")]
    for frames in sent:
        assert there.send(frames) == len(frames)
    assert here.receive(10) == [list(frames) for frames in sent]
    assert here.receive(10) == []


def test_receive_takes_no_more_than_asked_for(kind: Any, sockets: Pair) -> None:
    here, there = (kind(socket) for socket in sockets)
    for number in range(5):
        there.send((b"%d" % number,))
    assert here.receive(2) == [[b"0"], [b"1"]]
    assert here.receive(0) == []
    assert here.receive(9) == [[b"2"], [b"3"], [b"4"]]


def test_events_say_what_is_possible(kind: Any, sockets: Pair) -> None:
    here, there = (kind(socket) for socket in sockets)
    assert here.events() == zmq.POLLOUT
    there.send((b"news",))
    assert here.events() == zmq.POLLOUT | zmq.POLLIN


def test_send_that_would_wait_takes_nothing(kind: Any) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as lonely:
        lonely.linger = 0
        assert kind(lonely).send((b"to", b"nobody")) == 0


def test_send_to_an_unknown_peer_raises(kind: Any) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.set(zmq.ROUTER_MANDATORY, 1)
        with pytest.raises(zmq.ZMQError) as failure:
            kind(router).send((b"nobody", b"", b"body"))
        assert failure.value.errno == zmq.EHOSTUNREACH


def test_rest_of_a_message_is_taken(kind: Any, sockets: Pair) -> None:
    here, there = (kind(socket) for socket in sockets)
    there.send_rest((b"rest", b"end"))
    assert here.receive(1) == [[b"rest", b"end"]]


def test_closed_socket_raises(kind: Any) -> None:
    with zmq.Context() as context:
        socket = context.socket(zmq.PAIR)
        frames = kind(socket)
        socket.close()
        for use in (frames.events, lambda: frames.receive(1), lambda: frames.send((b"x",))):
            with pytest.raises(zmq.ZMQError) as failure:
                use()
            assert failure.value.errno == zmq.ENOTSOCK


@needs_libzmq
@pytest.mark.parametrize(
    "frames", [("text",), (bytearray(b"x"),), (None,), [b"list"], (b"begin", None)]
)
def test_frames_that_are_no_bytes_are_refused_whole(sockets: Pair, frames: Any) -> None:
    here, there = Frames(sockets[0]), Frames(sockets[1])
    for send in (there.send, there.send_rest):
        with pytest.raises(TypeError):
            send(frames)
    there.send((b"next",))
    assert here.receive(2) == [[b"next"]]


@needs_libzmq
@pytest.mark.parametrize("other", [None, 7, "inproc://frames"])
def test_only_a_socket_has_frames(other: Any) -> None:
    with pytest.raises(TypeError):
        Frames(other)


@pytest.mark.skipif(sys.platform == "win32", reason="a module's dependencies are not searched")
def test_libzmq_of_pyzmq_is_found() -> None:
    assert LIBZMQ_FOUND


# What PYZMQ_BACKEND may name: here pyzmq's own, with a socket class that is not its extension's.
BACKEND = """
from zmq.backend.cython import *
from zmq.backend.cython import Socket as _Socket, monitored_queue

class Socket(_Socket):
    pass
"""


def test_libzmq_is_not_looked_for_when_the_sockets_are_of_another_backend(tmp_path: Path) -> None:
    (tmp_path / "another_backend.py").write_text(BACKEND)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    found = subprocess.run(
        [sys.executable, "-c", "from descartes_fast._core.frames import *; print(LIBZMQ_FOUND)"],
        env=os.environ | {"PYZMQ_BACKEND": "another_backend", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "False"
