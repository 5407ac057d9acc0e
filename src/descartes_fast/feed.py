"""One SUB socket, shared by everything in a client that listens to the same kind of news."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from typing import Protocol

import zmq

from ._core import LogStreamMessage, StatusUpdate, deserialize_zmq_message
from .channel import Channel, Monitor, MonitorEvent
from .config import ZmqRunnerConfig
from .errors import CommunicationError, DescartesError, ProtocolError, UsageError
from .socket_options import set_client_options

__all__ = ["Feed", "Listener", "Publication"]

Publication = LogStreamMessage | StatusUpdate

STATUS_PREFIX = b"status/"
_SYNC_PREFIX = b"sync/"
# An echo can get lost like any publication: ask again after this long.
_SYNC_REPEAT_SECS = 1.0
_SYNC_TIMEOUT_SECS = 10.0
# Then the connection is taken for dead (TCP would need minutes to notice).
_SYNCS_BEFORE_REOPENING = 4


class Listener(Protocol):
    """What a feed tells those who listen."""

    def published(self, message: Publication) -> None:
        """A message on one of the listener's topics."""

    def rejoined(self) -> None:
        """The feed is connected again: what was published in between is lost."""

    def failed(self, make_error: Callable[[], DescartesError], final: bool) -> None:
        """The server cannot be reached; unless that is ``final``, ``rejoined`` may follow."""


class Feed:
    """One SUB socket and its listeners by topic.

    Topics are whole topics, ``status/`` or one hexadecimal digit (all agents whose id
    begins with it). ``high_water_mark`` is how many messages may wait in the socket while
    the program does not let the loop run. ``broken_messages`` counts what could not be understood.
    """

    def __init__(
        self,
        config: ZmqRunnerConfig,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        *,
        high_water_mark: int,
    ) -> None:
        self.broken_messages = 0
        self._config = config
        self._context = context
        self._endpoint = endpoint
        self._high_water_mark = high_water_mark
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[bytes, list[Listener]] = {}
        self._syncs: dict[bytes, asyncio.Future[None]] = {}
        self._was_connected = False
        self._open()

    def listen(self, topics: Iterable[bytes], listener: Listener) -> None:
        """Tell ``listener`` what is published under these topics."""
        for topic in topics:
            known = self._listeners.setdefault(topic, [])
            if not known:
                self._socket.subscribe(topic)
            known.append(listener)

    def leave(self, topics: Iterable[bytes], listener: Listener) -> None:
        """Take back a ``listen``."""
        for topic in topics:
            known = self._listeners.get(topic, [])
            if listener in known:
                known.remove(listener)
            if not known and self._listeners.pop(topic, None) is not None:
                self._unsubscribe(topic)

    async def synced(self) -> None:
        """Wait until the server publishes to us under all topics subscribed so far.

        A topic of our own, subscribed after the others, comes back when the server has
        seen it: whatever is published from then on reaches us, and whatever was published
        before it was asked for has arrived. Raises ``CommunicationError`` if it does not
        come back.
        """
        asked: list[bytes] = []
        echo: asyncio.Future[None] = self._loop.create_future()
        deadline = self._loop.time() + min(_SYNC_TIMEOUT_SECS, self._config.request_timeout_secs)
        try:
            while self._loop.time() < deadline:
                topic = _SYNC_PREFIX + secrets.token_hex(8).encode()
                asked.append(topic)
                self._syncs[topic] = echo
                self._socket.subscribe(topic)
                left_secs = deadline - self._loop.time()
                await asyncio.wait([echo], timeout=min(_SYNC_REPEAT_SECS, left_secs))
                if echo.done():
                    return echo.result()
                if len(asked) == _SYNCS_BEFORE_REOPENING:
                    self.move(self._endpoint)
        finally:
            for topic in asked:
                del self._syncs[topic]
                self._unsubscribe(topic)
        raise CommunicationError(f"the publishing endpoint {self._endpoint} does not answer")

    def move(self, endpoint: str) -> None:
        """Subscribe elsewhere, or there anew: the server has another address, or was dead."""
        self._close_socket()
        self._endpoint = endpoint
        self._open()

    @property
    def endpoint(self) -> str:
        """Where the feed subscribes."""
        return self._endpoint

    def fail(self, make_error: Callable[[], DescartesError], *, final: bool) -> None:
        """Tell every listener that the server cannot be reached."""
        for listener in self._everybody():
            listener.failed(make_error, final)

    def close(self) -> None:
        """Close the socket and tell who still listens; closing twice is fine."""
        self._close_socket()
        self.fail(lambda: CommunicationError("the client was disconnected"), final=True)
        for echo in self._syncs.values():
            if not echo.done():
                echo.set_exception(CommunicationError("the client was disconnected"))

    def _open(self) -> None:
        socket = self._context.socket(zmq.SUB)
        try:
            set_client_options(socket, self._endpoint, self._config)
            socket.set(zmq.RCVHWM, self._high_water_mark)
            for topic in (*self._listeners, *self._syncs):
                socket.subscribe(topic)
            self._channel = Channel(socket, self._receive)
            self._monitor = Monitor(socket, self._connection_event)
            socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            self._close_half_open(socket)
            raise UsageError(f"cannot subscribe at {self._endpoint!r}: {error}") from None
        except BaseException:
            self._close_half_open(socket)
            raise
        self._socket = socket

    def _close_half_open(self, socket: zmq.Socket[bytes]) -> None:
        for part in (getattr(self, "_monitor", None), getattr(self, "_channel", None)):
            if part is not None:
                part.close()
        socket.close(linger=0)

    def _close_socket(self) -> None:
        self._monitor.close()
        self._channel.close()

    def _unsubscribe(self, topic: bytes) -> None:
        if not self._channel.closed:
            self._socket.unsubscribe(topic)

    def _connection_event(self, event: MonitorEvent) -> None:
        if event.event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            if self._was_connected:
                for listener in self._everybody():
                    listener.rejoined()
            self._was_connected = True

    def _everybody(self) -> list[Listener]:
        """Every listener once, however many topics it has."""
        found: dict[int, Listener] = {}
        for known in self._listeners.values():
            found.update((id(listener), listener) for listener in known)
        return list(found.values())

    def _receive(self, frames: list[bytes]) -> None:
        topic, separator, body = frames[0].partition(b"\0")
        if not separator:
            self.broken_messages += 1
        elif topic.startswith(_SYNC_PREFIX):
            echo = self._syncs.get(topic)
            if echo is not None and not echo.done():
                echo.set_result(None)
        else:
            self._publish(topic, body)

    def _publish(self, topic: bytes, body: bytes) -> None:
        everybody = [
            listener
            for key in (topic, topic[:1], topic[: len(STATUS_PREFIX)])
            for listener in self._listeners.get(key, ())
        ]
        if not everybody:
            return
        try:
            message = deserialize_zmq_message(body)
        except ProtocolError:
            self.broken_messages += 1
            return
        if not isinstance(message, (LogStreamMessage, StatusUpdate)):
            self.broken_messages += 1
            return
        for listener in everybody:
            listener.published(message)
