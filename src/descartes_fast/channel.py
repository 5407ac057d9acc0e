"""One ZeroMQ socket on the running event loop, without a future per frame.

libzmq's file descriptor is edge-triggered in effect: it becomes readable when libzmq has
news for the socket, and *any* call on the socket may take that news away. So a reader
drains the socket until it says there is nothing left, and looks again after sending
(``zmq_getsockopt(3)``, ``ZMQ_FD``). A slow timer looks once a second all the same, so
that a missed wake-up (``pyzmq#1177``) costs a second and not for ever.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import zmq

from ._core.frames import LIBZMQ_FOUND, Frames
from .errors import UsageError
from .plain_frames import PlainFrames

__all__ = ["Channel", "Monitor", "MonitorEvent", "SocketFrames", "usual_frames"]

M = TypeVar("M")

SAFETY_INTERVAL_SECS = 1.0

# As plain ints: each conversion of pyzmq's enums costs more than the call it is for.
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)


class SocketFrames(Protocol):
    """Whole messages in and out of one socket: ``Frames``, and what has its interface."""

    @property
    def fd(self) -> int: ...
    def events(self) -> int: ...
    def receive(self, limit: int) -> list[list[bytes]]: ...
    def send(self, frames: tuple[bytes, ...]) -> int: ...
    def send_rest(self, frames: tuple[bytes, ...]) -> None: ...
    def send_all(self, messages: list[tuple[bytes, ...]]) -> list[int]: ...
    def close(self) -> None: ...


def usual_frames(socket: zmq.Socket[bytes]) -> Frames | PlainFrames:
    """Return the way to a socket that one thread uses: libzmq's own functions, or pyzmq's calls."""
    return Frames(socket) if LIBZMQ_FOUND else PlainFrames(socket)


class Channel:
    """One ZeroMQ socket on the running event loop; owns the socket from then on.

    Each message that arrives is given to ``on_message`` as its list of frames; what that
    raises goes to the loop's exception handler and never stops the reading. After at most
    ``batch`` messages ``on_delivered`` is called, and then the other callbacks of the loop get
    their turn.

    ``on_writable`` is called once after a ``send`` that returned ``False``, as soon as the
    socket takes messages again. ``frames`` are the way to the socket, if not the usual one, and
    are closed with it. Must be made, used and closed on the loop's thread.
    Raises ``UsageError`` on a loop that cannot watch file descriptors.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_message: Callable[[list[bytes]], None] | None = None,
        *,
        on_delivered: Callable[[], None] | None = None,
        on_writable: Callable[[], None] | None = None,
        frames: SocketFrames | None = None,
        batch: int = 128,
    ) -> None:
        self.socket = socket
        self.received_count = 0
        self.sent_count = 0
        self.closed = False
        self.delivering = False
        """Whether messages are being given to ``on_message``; ``on_delivered`` follows."""
        self._frames = usual_frames(socket) if frames is None else frames
        self._on_message = on_message
        self._on_delivered = on_delivered
        self._on_writable = on_writable
        self._batch = batch
        self._expected = 1
        self._draining = False
        self._blocked = False
        self._looking: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()
        self._fd = self._frames.fd
        try:
            self._loop.add_reader(self._fd, self._drain)
        except NotImplementedError:
            raise UsageError(
                f"{type(self._loop).__name__} cannot watch sockets; "
                "on Windows run on asyncio.SelectorEventLoop"
            ) from None
        self._timer = self._loop.call_later(SAFETY_INTERVAL_SECS, self._look_by_timer)
        self._look_soon()

    def send(self, frames: tuple[bytes, ...]) -> bool:
        """Send one message of ``frames`` without waiting.

        Returns ``False`` if it would have to wait (no peer, or its queue is full): nothing
        was sent. Raises ``zmq.ZMQError`` for any other failure, ``EHOSTUNREACH`` from a
        ROUTER with ``ROUTER_MANDATORY`` above all.
        """
        return self.send_many((frames,)) == 1

    def send_many(self, messages: Sequence[tuple[bytes, ...]]) -> int:
        """Send messages until one would have to wait; return how many were sent.

        One look at what libzmq has taken in meanwhile serves them all. Raises as :meth:`send`,
        at the first message that fails.
        """
        sent = 0
        try:
            for frames in messages:
                taken = self._frames.send(frames)
                if taken < len(frames):
                    self._block(frames, taken)
                    break
                sent += 1
        finally:
            self._sent(sent)
        return sent

    def send_all(self, messages: list[tuple[bytes, ...]]) -> list[int]:
        """Send messages without waiting, whatever becomes of those before.

        Returns for each 0, or the errno of what is in its way, ``EAGAIN`` where it would have to
        wait: then nothing of it was sent, and nobody is told when it could be. Raises
        ``zmq.ZMQError`` if the socket is closed.
        """
        outcomes = self._frames.send_all(messages)
        self._sent(outcomes.count(0))
        return outcomes

    def close(self, *, linger_ms: int = 0) -> None:
        """Stop watching and close the socket; closing twice is fine.

        What is still queued has ``linger_ms`` to leave; the wait is in the context's
        ``term()``, not here.
        """
        if self.closed:
            return
        self.closed = True
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        try:
            self._frames.close()
        finally:
            self.socket.close(linger=linger_ms)

    def _sent(self, count: int) -> None:
        """Look whether libzmq has taken something in while it was sending."""
        self.sent_count += count
        if self._looking is None and not self._draining and self._events() & _POLLIN:
            self._look_soon()

    def _block(self, frames: tuple[bytes, ...], taken: int) -> None:
        """A message could not be sent now; tell when the socket takes messages again."""
        if taken:
            # libzmq discards up to the frame without MORE (``lb_t::sendpipe``); frames held
            # back here would be missing from the next message instead.
            self._frames.send_rest(frames[taken + 1 :])
        self._blocked = True
        self._look_soon()

    def _look_soon(self) -> None:
        """Look at the socket in the loop's next turn, once for any number of sends."""
        if self._looking is None and not self.closed:
            self._looking = self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._looking = None
        events = self._events()
        if events & _POLLIN:
            self._expected = self._batch
            self._drain()
        else:
            self._expected = 1
        if self._blocked and events & _POLLOUT and not self.closed:
            self._blocked = False
            if self._on_writable is not None:
                self._on_writable()

    def _look_by_timer(self) -> None:
        self._timer = self._loop.call_later(SAFETY_INTERVAL_SECS, self._look_by_timer)
        self._look()

    def _events(self) -> int:
        if self.closed:
            return 0
        try:
            return self._frames.events()
        except zmq.ZMQError:  # the context was terminated, or the socket closed, behind us
            self.close()
            return 0

    def _drain(self) -> None:
        """Receive what is there and give it on, then look whether there is more.

        A message that comes alone, as the answer to a lone request does, is given on before
        libzmq is asked for the next, which costs system calls: in the loop's next turn, so that
        one look serves the next request too.
        """
        self._draining = True
        try:
            count = self._take(self._expected)
        finally:
            self._draining = False
        if self._blocked or count:
            self._look_soon()

    def _take(self, limit: int) -> int:
        """Receive at most ``limit`` messages and give them on; return how many there were."""
        try:
            messages = self._frames.receive(limit)
        except zmq.ZMQError:
            self.close()
            return 0
        self.received_count += len(messages)
        if messages and self._on_message is not None:
            self._deliver(messages, self._on_message)
        return len(messages)

    def _deliver(self, messages: Sequence[M], on_message: Callable[[M], None]) -> None:
        self.delivering = True
        try:
            for message in messages:
                try:
                    on_message(message)
                except Exception as error:
                    self._report(error)
                if self.closed:
                    return
        finally:
            self.delivering = False
            if self._on_delivered is not None:
                self._on_delivered()

    def _report(self, error: Exception) -> None:
        self._loop.call_exception_handler(
            {"message": "a message could not be handled", "exception": error}
        )


class MonitorEvent(NamedTuple):
    """What happened to a socket's connection: ``event`` of ``zmq.Event``, its value, where."""

    event: int
    value: int
    endpoint: str


class Monitor:
    """A socket's connection events, as callbacks on the running event loop.

    Close it before its socket.
    """

    CONNECTION_EVENTS = (
        int(zmq.EVENT_CONNECTED)
        | int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        | int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        | int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        | int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        | int(zmq.EVENT_DISCONNECTED)
        | int(zmq.EVENT_CLOSED)
    )

    _numbers = itertools.count()

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_event: Callable[[MonitorEvent], None],
        *,
        events: int = CONNECTION_EVENTS,
    ) -> None:
        self._watched = socket
        self._on_event = on_event
        address = f"inproc://descartes-fast-monitor-{next(self._numbers)}"
        socket.monitor(address, events)
        pair = socket.context.socket(zmq.PAIR)
        try:
            pair.connect(address)
            self._channel = Channel(pair, self._receive)
        except BaseException:
            socket.monitor(None, 0)
            pair.close(linger=0)
            raise

    def close(self) -> None:
        """Stop the events; closing twice is fine."""
        if self._channel.closed:
            return
        if not self._watched.closed:
            self._watched.monitor(None, 0)
        self._channel.close()

    def _receive(self, frames: list[bytes]) -> None:
        event, value = struct.unpack("=hi", frames[0])
        self._on_event(MonitorEvent(event & 0xFFFF, value, frames[1].decode("utf-8", "replace")))
