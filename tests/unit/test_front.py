"""The thread before the event loop, against plain sockets; no loop runs here."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
import zmq

from descartes_fast import (
    AgentStatus,
    CommandResponse,
    ControlCommand,
    ControlCommandType,
    serialize_zmq_message,
)
from descartes_fast._core.frames import LIBZMQ_FOUND
from descartes_fast._core.quick_status import QuickReplies
from descartes_fast.server.envelope import split_envelope

if TYPE_CHECKING:
    from descartes_fast._core.front import Front
else:
    Front = pytest.importorskip("descartes_fast._core.front").Front

pytestmark = pytest.mark.skipif(not LIBZMQ_FOUND, reason="libzmq's functions are not found here")

AGENT = uuid4()
ENDPOINT = "inproc://front"
SECS = 10.0
_NEVER_MS = 3_600_000  # a wake-up that is missed is to fail the test

Socket = zmq.Socket[bytes]


def question(request_id: str = "r", agent_id: UUID = AGENT) -> bytes:
    return serialize_zmq_message(
        ControlCommand(
            request_id=request_id,
            agent_id=agent_id,
            command_type=ControlCommandType.GET_STATUS,
            payload=None,
        )
    )


def answer(request_id: str = "", status: AgentStatus = AgentStatus.RUNNING) -> bytes:
    return serialize_zmq_message(
        CommandResponse(
            request_id=request_id, agent_id=AGENT, success=True, status=status, data={"seq": 2}
        )
    )


class Made:
    """A ROUTER with a front, and the plain sockets that a test connects to it."""

    def __init__(self, context: zmq.Context[Socket]) -> None:
        self.context = context
        self.router = context.socket(zmq.ROUTER)
        self.router.set(zmq.ROUTER_MANDATORY, 1)
        self.router.set(zmq.LINGER, 0)
        self.router.set(zmq.SNDHWM, 20)
        self.router.set(zmq.RCVHWM, 20)
        self.router.bind(ENDPOINT)
        self.quick = QuickReplies()
        self.quick.tell(AGENT.bytes, answer())
        self.front = Front(self.router, self.quick, safety_ms=_NEVER_MS)
        self._others: list[Socket] = []

    def close(self) -> None:
        self.front.close()
        for socket in (self.router, *self._others):
            socket.close(linger=0)
        self.context.term()

    def socket(self, kind: int) -> Socket:
        socket = self.context.socket(kind)
        self._others.append(socket)
        return socket

    def client(self, kind: int = zmq.DEALER, **options: int | bytes) -> Socket:
        socket = self.socket(kind)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RCVTIMEO, int(SECS * 1000))
        for name, value in options.items():
            socket.set(getattr(zmq, name), value)
        socket.connect(ENDPOINT)
        return socket

    def take(self, count: int) -> list[list[bytes]]:
        """Return messages for the loop as it would get them: when ``fd`` is readable."""
        taken: list[list[bytes]] = []
        while len(taken) < count:
            assert select.select([self.front.fd], [], [], SECS)[0], f"{len(taken)} of {count}"
            taken += self.front.receive(128)
        return taken


@pytest.fixture
def made() -> Iterator[Made]:
    made = Made(zmq.Context())
    yield made
    made.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.DEALER])
def test_what_is_known_is_answered_though_no_loop_runs(made: Made, kind: int) -> None:
    client = made.client(kind)
    for number in range(100):
        client.send(question(f"r-{number}"))
        assert client.recv() == answer(f"r-{number}")
    assert made.quick.take_counts() == (
        100,
        sum(len(question(f"r-{number}")) for number in range(100)),
        100,
        sum(len(answer(f"r-{number}")) for number in range(100)),
        0,
    )
    assert made.quick.take_counts() == (0, 0, 0, 0, 0)
    assert not select.select([made.front.fd], [], [], 0)[0]
    assert made.front.receive(10) == []


def test_what_was_taken_back_is_the_loops_until_it_is_told_anew(made: Made) -> None:
    client = made.client()
    made.quick.take_back(AGENT.bytes)
    client.send(question())
    ((identity, body),) = made.take(1)
    assert body == question()
    assert made.quick.take_counts() == (0, 0, 0, 0, 0)
    paused = answer(status=AgentStatus.PAUSED)
    made.quick.tell(AGENT.bytes, paused)
    client.send(question())
    assert client.recv() == answer("r", AgentStatus.PAUSED)
    assert made.front.send((identity, b"from the loop")) == 2
    assert client.recv() == b"from the loop"


def test_nothing_older_is_said_once_it_was_taken_back(made: Made) -> None:
    """What one thread has taken back before a reply, the other says to no question after it."""
    client = made.client()
    for number in range(2000):
        status = (AgentStatus.RUNNING, AgentStatus.PAUSED)[number % 2]
        made.quick.take_back(AGENT.bytes)
        made.quick.tell(AGENT.bytes, answer(status=status))
        client.send(question(str(number)))
        assert client.recv() == answer(str(number), status)


def test_other_messages_come_to_the_loop_whole_and_in_order(made: Made) -> None:
    client = made.client(SNDHWM=0, RCVHWM=0)
    for number in range(3000):
        client.send_multipart([b"", b"%d" % number])
        if number % 3 == 0:
            client.send_multipart([b"", question(str(number))])
    taken = made.take(3000)
    assert [frames[1:] for frames in taken] == [[b"", b"%d" % number] for number in range(3000)]
    replies = [client.recv_multipart() for _ in range(1000)]
    assert replies == [[b"", answer(str(number))] for number in range(0, 3000, 3)]


def test_descriptor_is_readable_as_long_as_there_are_messages(made: Made) -> None:
    client = made.client()
    for _ in range(3):
        client.send(b"x")
    until(lambda: bool(made.front.events() & zmq.POLLIN))
    assert len(made.take(1)) >= 1
    until(lambda: made.front.receive(1) == [])
    assert made.front.events() == zmq.POLLOUT
    assert not select.select([made.front.fd], [], [], 0.01)[0]
    client.send(b"y")
    assert made.take(1)[0][1:] == [b"y"]


def test_full_ring_holds_clients_back_and_loses_nothing(made: Made) -> None:
    client = made.client(SNDHWM=20, RCVHWM=20)
    sent = 0
    while client.poll(200, zmq.POLLOUT):
        client.send(b"%d" % sent)
        sent += 1
        assert sent < 2000
    taken = made.take(sent)
    assert [frames[1] for frames in taken] == [b"%d" % number for number in range(sent)]
    client.send(question())
    assert client.recv() == answer("r")


def test_large_messages_fill_the_ring_by_their_bytes(made: Made) -> None:
    client = made.client(SNDHWM=1, RCVHWM=1)
    sent = 0
    while client.poll(200, zmq.POLLOUT):
        client.send(bytes(3 * 1024 * 1024))
        sent += 1
        assert sent < 40
    assert sent < 30  # three in the ring, and twenty that libzmq has room for
    assert [len(frames[1]) for frames in made.take(sent)] == [3 * 1024 * 1024] * sent


def test_loop_that_sends_takes_in_what_came_and_lets_the_thread_go_on(made: Made) -> None:
    asking, other = made.client(SNDHWM=0, RCVHWM=0), made.client(SNDHWM=0, RCVHWM=0)
    other.send(b"here I am")
    ((identity, _),) = made.take(1)
    for number in range(300):
        asking.send_multipart([b"", question(str(number))])
        asking.send_multipart([b"", b"%d" % number])
        assert made.front.send((identity, b"%d" % number)) == 2
        assert asking.recv_multipart() == [b"", answer(str(number))]
        assert other.recv() == b"%d" % number
        assert [frames[1:] for frames in made.take(1)] == [[b"", b"%d" % number]]


def layouts(seed: int) -> Iterator[list[bytes]]:
    dice = random.Random(seed)
    parts = [b"", b"", b"x", b"id", question("a"), question("b"), bytes(5000), b"\x95"]
    for _ in range(600):
        yield [dice.choice(parts) for _ in range(dice.choice((1, 1, 2, 2, 3, 4, 15, 16, 17, 30)))]


def test_envelopes_are_those_of_the_loop(made: Made) -> None:
    """Answered is exactly what the ordinary way would answer, and behind the same envelope."""
    client = made.client()
    seed = random.SystemRandom().randrange(2**32)
    answered = 0
    for frames in layouts(seed):
        told = f"seed {seed}: {[frame[:8] for frame in frames]}"
        client.send_multipart(frames)
        parts = split_envelope([b"identity", *frames])
        if parts is not None and parts[1] in (question("a"), question("b")):
            request_id = "a" if parts[1] == question("a") else "b"
            assert client.recv_multipart() == [*parts[0][1:], answer(request_id)], told
            answered += 1
        else:
            ((_, *taken),) = made.take(1)
            assert taken == frames[:16], told
            assert (split_envelope([b"identity", *taken]) is None) == (parts is None), told
    assert answered > 50


def test_client_whose_replies_wait_is_left_to_the_loop(made: Made) -> None:
    client, other = made.client(IDENTITY=b"slow"), made.client()
    made.quick.pass_over(b"slow")
    client.send(question())
    assert made.take(1) == [[b"slow", question()]]
    other.send(question())
    assert other.recv() == answer("r")
    made.quick.take_up(b"slow")
    client.send(question())
    assert client.recv() == answer("r")


def test_what_a_slow_client_cannot_take_goes_to_the_loop(made: Made) -> None:
    slow, other = made.client(RCVHWM=1, SNDHWM=0), made.client()
    for number in range(200):
        slow.send(question(str(number)))
        other.send(question())
        assert other.recv() == answer("r")
    left = [frames[1] for frames in made.take(1)]
    requests, _, replies, _, dropped = made.quick.take_counts()
    while len(left) + requests < 400:
        left += [frames[1] for frames in made.take(1)]
    assert requests == replies
    assert dropped == 0
    got = [slow.recv() for _ in range(replies - 200)]
    assert got == [answer(str(number)) for number in range(len(got))]
    assert left == [question(str(number)) for number in range(len(got), 200)]


def test_reply_to_a_client_that_has_gone_is_dropped_and_counted(made: Made) -> None:
    """The last words of a client are read; libzmq may hear of its end before or after them."""
    filling = made.client(SNDHWM=20)

    asked = 0
    totals = [0] * 5

    def count() -> None:
        totals[:] = [
            total + more for total, more in zip(totals, made.quick.take_counts(), strict=True)
        ]

    def is_dropped() -> bool:
        nonlocal asked
        waiting = 0
        while filling.poll(50, zmq.POLLOUT):  # until the thread waits for room
            filling.send(b"x")
            waiting += 1
        leaving = made.client()
        leaving.send(question())
        leaving.close(linger=-1)
        asked += 1
        made.take(waiting)

        def is_counted() -> bool:
            # A reply is counted before it is sent, and what becomes of it afterwards.
            count()
            requests, request_bytes, replies, reply_bytes, dropped = totals
            assert replies <= requests <= asked
            return (
                (requests, request_bytes) == (asked, asked * len(question()))
                and reply_bytes == replies * len(answer("r"))
                and replies + dropped == asked
            )

        until(is_counted)
        return totals[4] > 0

    until(is_dropped)


def test_counts_that_are_taken_at_any_moment_add_up(made: Made) -> None:
    """Also while a reply is under way that is counted and will turn out to be dropped."""
    totals = [0] * 5
    stop_at = time.monotonic() + 1
    asked = 0
    while time.monotonic() < stop_at:
        leaving = made.client()
        for _ in range(5):
            leaving.send(question())
        leaving.close(linger=-1)
        asked += 5
        for _ in range(50):
            more = made.quick.take_counts()
            assert all(abs(each) < 1_000_000 for each in more), more
            totals = [total + each for total, each in zip(totals, more, strict=True)]
        made.front.receive(128)
    assert 0 < totals[0] <= asked


def test_terminated_context_ends_the_thread_and_is_told(made: Made) -> None:
    ending = threading.Thread(target=made.context.term)
    ending.start()
    assert select.select([made.front.fd], [], [], SECS)[0]
    for look in (made.front.events, lambda: made.front.receive(1)):
        with pytest.raises(zmq.ZMQError) as raised:
            look()
        assert raised.value.errno == zmq.ETERM
    made.front.close()
    made.router.close(linger=0)
    ending.join(SECS)
    assert not ending.is_alive()


def test_close_leaves_no_thread_and_no_descriptor(made: Made) -> None:
    fds = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
    other = made.socket(zmq.ROUTER)
    before, threads = len(os.listdir(fds)), threading.active_count()
    for _ in range(3):
        front = Front(other, made.quick)
        assert threading.active_count() == threads + 1
        front.close()
        front.close()
        for use in (front.send, front.send_rest):
            with pytest.raises(zmq.ZMQError) as raised:
                use((b"id", b"x"))
            assert raised.value.errno == zmq.ENOTSOCK
    assert threading.active_count() == threads
    assert len(os.listdir(fds)) == before


def test_failed_start_leaves_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    other = made.socket(zmq.ROUTER)
    fds = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
    before = len(os.listdir(fds))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        Front(other, made.quick)
    assert len(os.listdir(fds)) == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_signals_are_not_for_the_thread(made: Made) -> None:
    made.client(zmq.REQ).send(question())
    (thread,) = [each for each in threading.enumerate() if each.name == "descartes-fast-front"]
    status = Path(f"/proc/self/task/{thread.native_id}/status")

    def blocked() -> int:
        text = status.read_text()
        return int(text.split("SigBlk:")[1].split()[0], 16)

    until(lambda: blocked() & (1 << 14) != 0)  # SIGTERM


UNCLOSED = """
import zmq
from descartes_fast._core.front import Front
from descartes_fast._core.quick_status import QuickReplies
socket = zmq.Context().socket(zmq.ROUTER)
socket.bind("inproc://x")
front = Front(socket, QuickReplies())
"""


def test_program_that_closes_nothing_ends_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNCLOSED], timeout=30, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_without_eventfds_pipes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "eventfd", raising=False)
    made = Made(zmq.Context())
    client = made.client()
    for number in range(500):
        client.send(question(str(number)))
        client.send(b"%d" % number)
        assert client.recv() == answer(str(number))
        assert made.take(1)[0][1:] == [b"%d" % number]
    made.close()
