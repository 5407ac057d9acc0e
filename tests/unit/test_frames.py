"""Whole messages through libzmq's functions and through pyzmq's: the same in both ways."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from descartes_fast import (
    HealthCheckRequest,
    LogStreamMessage,
    LogStreamType,
    StatusUpdate,
    StatusUpdateType,
    serialize_zmq_message,
)
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


AGENT = uuid.uuid4()
UPDATE = StatusUpdate(agent_id=AGENT, update_type=StatusUpdateType.STATUS_CHANGED, data={"seq": 1})
LOG = LogStreamMessage(
    agent_id=AGENT, stream_type=LogStreamType.STDOUT, data=b"\0output\xff", sequence=7
)
UPDATE_BYTES, LOG_BYTES = serialize_zmq_message(UPDATE), serialize_zmq_message(LOG)
REQUEST_BYTES = serialize_zmq_message(HealthCheckRequest(request_id="1"))


def test_publications_come_in_runs_of_one_route_and_in_order(kind: Any, sockets: Pair) -> None:
    here, there = (kind(socket) for socket in sockets)
    one, other = ("one",), ("other",)
    routes = {b"a": one, b"b": one, b"c": other, b"unwanted": (), b"": other}
    frames = [
        b"a\0" + UPDATE_BYTES,
        b"b\0" + LOG_BYTES,
        b"unwanted\0" + UPDATE_BYTES,
        b"a\0" + UPDATE_BYTES,
        b"c\0" + UPDATE_BYTES,
        b"\0" + UPDATE_BYTES,
        b"a\0" + LOG_BYTES,
        b"unwanted\0broken",
    ]
    for frame in frames:
        there.send((frame, b"not looked at"))
    assert here.receive_published(100, routes) == (
        8,
        [(one, [UPDATE, LOG, UPDATE]), (other, [UPDATE, UPDATE]), (one, [LOG])],
    )
    assert here.receive_published(100, routes) == (0, [])


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"sync/1\0server", id="echo"),
        pytest.param(b"new\0" + UPDATE_BYTES, id="unknown topic"),
        pytest.param(b"a", id="topic alone"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0", id="no topic"),
        pytest.param(b"a\0", id="no message"),
        pytest.param(b"a\0" + UPDATE_BYTES[:-1], id="cut"),
        pytest.param(b"a\0" + UPDATE_BYTES + b"\0", id="too long"),
        pytest.param(b"a\0" + REQUEST_BYTES, id="a request"),
        pytest.param(b"a\0\xc1", id="no MessagePack"),
    ],
)
def test_publication_that_is_not_plain_is_given_on_as_it_is_in_its_place(
    kind: Any, sockets: Pair, frame: bytes
) -> None:
    here, there = (kind(socket) for socket in sockets)
    routes = {b"a": ("one",)}
    for sent in (b"a\0" + UPDATE_BYTES, frame, b"a\0" + LOG_BYTES):
        there.send((sent,))
    assert here.receive_published(100, routes) == (
        3,
        [(("one",), [UPDATE]), (None, frame), (("one",), [LOG])],
    )


def test_publications_are_no_more_than_asked_for_and_fewer_if_large(
    kind: Any, sockets: Pair
) -> None:
    here, there = (kind(socket) for socket in sockets)
    routes: dict[bytes, tuple[str, ...]] = {b"a": ()}
    for _ in range(5):
        there.send((b"a\0",))
    assert [here.receive_published(limit, routes)[0] for limit in (0, 2, 9)] == [0, 2, 3]
    for _ in range(5):
        there.send((b"a\0" + b"x" * 500_000,))
    assert [here.receive_published(9, routes)[0] for _ in range(3)] == [3, 2, 0]


def test_publication_does_not_live_in_what_was_received(kind: Any, sockets: Pair) -> None:
    here, there = (kind(socket) for socket in sockets)
    route = ("one",)
    data = {"text": "x" * 1000}
    long = StatusUpdate(agent_id=AGENT, update_type=StatusUpdateType.ERROR, data=data)
    there.send((b"a\0" + serialize_zmq_message(long),))
    _, [(_, [received])] = here.receive_published(1, {b"a": route})
    for number in range(100):
        there.send((b"a\0" + b"%d" % number * 300,))
        here.receive(1)
    assert isinstance(received, StatusUpdate)
    assert received.data == data


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
        for use in (
            frames.events,
            lambda: frames.receive(1),
            lambda: frames.receive_published(1, {}),
            lambda: frames.send((b"x",)),
        ):
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


def test_send_all_tells_of_each_message_what_became_of_it(kind: Any) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.router_mandatory = True
        router.linger = 0
        router.sndhwm = router.rcvhwm = 1
        router.bind("inproc://routing")
        peers = []
        for name in (b"full", b"free"):
            dealer = context.socket(zmq.DEALER)
            dealer.routing_id = name
            dealer.linger = 0
            dealer.rcvhwm = dealer.sndhwm = 1
            dealer.connect("inproc://routing")
            dealer.send(b"here I am")
            router.recv_multipart()
            peers.append(dealer)
        to_full = (b"full", b"", b"reply")
        frames = kind(router)
        while frames.send_all([to_full]) == [0]:
            pass
        outcomes = frames.send_all([to_full, (b"nobody", b"", b"x"), (b"free", b"", b"y")])
        assert outcomes == [errno.EAGAIN, errno.EHOSTUNREACH, 0]
        assert peers[1].recv_multipart() == [b"", b"y"]
        assert frames.send_all([]) == []
        for dealer in peers:
            dealer.close()
        router.close()
        with pytest.raises(zmq.ZMQError):
            frames.send_all([to_full])
