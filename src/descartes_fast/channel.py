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
from typing import NamedTuple

import zmq
from zmq.backend import Socket as RawSocket

from .errors import UsageError

__all__ = ["Channel", "Monitor", "MonitorEvent"]

SAFETY_INTERVAL_SECS = 1.0

# As plain ints: each conversion of pyzmq's enums costs more than the call it is for.
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
_RCVMORE = int(zmq.RCVMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)


class Channel:
    """One ZeroMQ socket on the running event loop; owns the socket from then on.

    Each message that arrives is given to ``on_message`` as its list of frames; what that
    raises goes to the loop's exception handler and never stops the reading. After
    ``batch`` messages the other callbacks of the loop get their turn.

    ``on_writable`` is called once after a ``send`` that returned ``False``, as soon as the
    socket takes messages again. Must be made, used and closed on the loop's thread.
    Raises ``UsageError`` on a loop that cannot watch file descriptors.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_message: Callable[[list[bytes]], None] | None = None,
        *,
        on_writable: Callable[[], None] | None = None,
        batch: int = 128,
    ) -> None:
        self.socket = socket
        self.received_count = 0
        self.sent_count = 0
        self.closed = False
        self._on_message = on_message
        self._on_writable = on_writable
        self._batch = batch
        self._blocked = False
        self._looking: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.getsockopt(zmq.FD))
        try:
            self._loop.add_reader(self._fd, self._drain)
        except NotImplementedError:
            raise UsageError(
                f"{type(self._loop).__name__} cannot watch sockets; "
                "on Windows run on asyncio.SelectorEventLoop"
            ) from None
        self._timer = self._loop.call_later(SAFETY_INTERVAL_SECS, self._look_by_timer)
        self._look_soon()

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send one message of ``frames`` without waiting.

        Returns ``False`` if it would have to wait (no peer, or its queue is full): nothing
        was sent. Raises ``zmq.ZMQError`` for any other failure, ``EHOSTUNREACH`` from a
        ROUTER with ``ROUTER_MANDATORY`` above all.
        """
        last = len(frames) - 1
        position = 0
        try:
            for position in range(last):
                RawSocket.send(self.socket, frames[position], _NOBLOCK_MORE)
            position = last
            RawSocket.send(self.socket, frames[last], _NOBLOCK)
        except zmq.Again:
            if 0 < position < last:
                self._drop_rest(frames[position + 1 :])
            self._blocked = True
            self._look_soon()
            return False
        self.sent_count += 1
        if self._looking is None:
            self._look_soon()
        return True

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
        self.socket.close(linger=linger_ms)

    def _drop_rest(self, frames: Sequence[bytes]) -> None:
        """Give libzmq the rest of a message whose peer went away in the middle of it.

        It discards everything up to the frame without MORE (``lb_t::sendpipe``); frames
        held back here would be missing from the next message instead.
        """
        last = len(frames) - 1
        for position, frame in enumerate(frames):
            try:
                RawSocket.send(self.socket, frame, _NOBLOCK if position == last else _NOBLOCK_MORE)
            except zmq.Again:
                continue

    def _look_soon(self) -> None:
        """Look at the socket in the loop's next turn, once for any number of sends."""
        if self._looking is None and not self.closed:
            self._looking = self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._looking = None
        if self._events() & (_POLLIN | (_POLLOUT if self._blocked else 0)):
            self._drain()

    def _look_by_timer(self) -> None:
        self._timer = self._loop.call_later(SAFETY_INTERVAL_SECS, self._look_by_timer)
        self._look()

    def _events(self) -> int:
        if self.closed:
            return 0
        try:
            return int(self.socket.get(_EVENTS))
        except zmq.ZMQError:  # the context was terminated, or the socket closed, behind us
            self.close()
            return 0

    def _drain(self) -> None:
        """Receive until there is nothing left or the batch is full."""
        receive = self.socket.recv
        get = self.socket.get
        try:
            for count in range(self._batch):
                # A failed receive costs twice what a look at EVENTS does, a look three
                # times what a receive does: look when a message is likely to be the only one.
                if count == 1 and not self._events() & _POLLIN:
                    break
                frames = [receive(_NOBLOCK)]
                while get(_RCVMORE):
                    frames.append(receive(_NOBLOCK))
                self.received_count += 1
                if self._on_message is not None:
                    self._deliver(frames)
                if self.closed:
                    return
            else:
                self._look_soon()
        except zmq.Again:
            pass
        except zmq.ZMQError:
            self.close()
            return
        if self._blocked and self._events() & _POLLOUT:
            self._blocked = False
            if self._on_writable is not None:
                self._on_writable()

    def _deliver(self, frames: list[bytes]) -> None:
        try:
            assert self._on_message is not None
            self._on_message(frames)
        except Exception as error:
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
