"""One SUB socket, shared by everything in a client that listens to the same kind of news."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import zmq

from ._core import LogStreamMessage, StatusUpdate, deserialize_zmq_message
from .channel import MonitorEvent
from .config import ZmqRunnerConfig
from .errors import CommunicationError, DescartesError, ProtocolError, UsageError
from .link import Link
from .profile import ServerProfile
from .publications import Publication, PublicationChannel

__all__ = ["Feed", "Listener", "Publication"]

STATUS_PREFIX = b"status/"
_SYNC_PREFIX = b"sync/"
# An echo can get lost like any publication: ask again after this long.
_SYNC_REPEAT_SECS = 1.0
_SYNC_TIMEOUT_SECS = 10.0
# After half of that, or as many, the connection is taken for dead (TCP would need minutes).
_SYNCS_BEFORE_REOPENING = 4
# When another server takes the place of the old one this feed may be connected to it before
# the command connection is, which is there this long after its last attempt.
_CONNECTING_SECS = 1.0
_LISTENING_LIMIT = 10_000


class Listener(Protocol):
    """What a feed tells those who listen."""

    def published(self, messages: Sequence[Publication]) -> None:
        """Messages on the listener's topics, in order; who has just left may get some more."""

    def rejoined(self) -> None:
        """The feed works again: what was published in between is lost."""

    def failed(self, make_error: Callable[[], DescartesError], final: bool) -> None:
        """Nothing is published to us now; unless that is ``final``, ``rejoined`` may follow."""


class Feed:
    """One SUB socket and its listeners by topic, opened when it is first needed.

    Topics are whole topics, ``status/`` or one hexadecimal digit (all agents whose id
    begins with it). ``server`` is whose publications are wanted: what another server
    publishes is not passed on. ``high_water_mark`` is how many messages may wait in the
    socket while the program does not let the loop run. ``broken_messages`` counts what
    could not be understood.
    """

    def __init__(
        self,
        config: ZmqRunnerConfig,
        context: zmq.Context[zmq.Socket[bytes]],
        server: ServerProfile,
        *,
        high_water_mark: int,
    ) -> None:
        self.broken_messages = 0
        self._config = config
        self._context = context
        self._server = server
        self._high_water_mark = high_water_mark
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._listeners: dict[bytes, list[Listener]] = {}
        self._listening: dict[bytes, tuple[Listener, ...]] = {}
        """Who listens to a topic as it is published, worked out once."""
        self._audiences: dict[tuple[Listener, ...], tuple[Listener, ...]] = {}
        """The same tuple for the same listeners, so that their messages come in long runs."""
        self._syncs: dict[bytes, asyncio.Future[None]] = {}
        self._check: asyncio.Task[None] | None = None
        self._closed = False
        self._foreign = ""
        """The id of another server that publishes where we subscribe."""
        self._interrupted = False
        """Whether publications may have been missed before the next connection."""
        self._failing = False

    def listen(self, topics: Iterable[bytes], listener: Listener) -> None:
        """Tell ``listener`` what is published under these topics, once the feed is open."""
        self._forget_audiences()
        for topic in topics:
            known = self._listeners.setdefault(topic, [])
            if not known:
                self._subscribe(topic)
            known.append(listener)

    def leave(self, topics: Iterable[bytes], listener: Listener) -> None:
        """Take back a ``listen``."""
        self._forget_audiences()
        for topic in topics:
            known = self._listeners.get(topic, [])
            if listener in known:
                known.remove(listener)
            if not known and self._listeners.pop(topic, None) is not None:
                self._unsubscribe(topic)

    def open(self) -> None:
        """Connect, unless that has been done.

        Raises ``CommunicationError`` if it cannot be done and ``Unsupported`` if it is not
        known where the server publishes.
        """
        if self._closed:
            raise CommunicationError("the client was disconnected")
        if self._socket() is not None:
            return
        self._close_link()
        self._foreign = ""
        try:
            self._link = Link(
                self._context,
                zmq.SUB,
                self._server.subscribe_at(),
                self._config,
                open_channel=lambda socket: PublicationChannel(
                    socket, self._listening, self._receive
                ),
                on_event=self._connection_event,
                options={zmq.RCVHWM: self._high_water_mark},
            )
        except DescartesError as error:
            self._interrupted = self._failing = True
            if isinstance(error, UsageError) and self._config.pub_endpoint is None:
                raise CommunicationError(f"the server announces no endpoint: {error}") from None
            raise
        for topic in (*self._listeners, *self._syncs):
            self._subscribe(topic)

    async def synced(self) -> None:
        """Wait until the server publishes to us under all topics subscribed so far.

        A topic of our own, subscribed after the others, comes back when the server has
        seen it: whatever is published from then on reaches us, and whatever was published
        before it was asked for has arrived. Raises as ``open``, and ``CommunicationError``
        if it does not come back or another server sends it.
        """
        asked: list[bytes] = []
        echo: asyncio.Future[None] = self._loop.create_future()
        started = self._loop.time()
        limit_secs = min(_SYNC_TIMEOUT_SECS, self._config.request_timeout_secs)
        patience_secs = min(limit_secs, self._config.reconnect_delay_secs + _CONNECTING_SECS)
        reopen_at = started + min(limit_secs / 2, _SYNCS_BEFORE_REOPENING * _SYNC_REPEAT_SECS)
        try:
            while (left_secs := started + limit_secs - self._loop.time()) > 0:
                self.open()
                topic = _SYNC_PREFIX + secrets.token_hex(8).encode()
                asked.append(topic)
                self._syncs[topic] = echo
                self._subscribe(topic)
                await asyncio.wait([echo], timeout=min(_SYNC_REPEAT_SECS, left_secs))
                if echo.done():
                    return echo.result()
                if self._foreign:
                    if self._loop.time() >= started + patience_secs:
                        raise CommunicationError(
                            f"the publishing endpoint {self._server.pub_endpoint} belongs to "
                            f"server {self._foreign!r}, not to {self._server.server_id!r}; "
                            "set pub_endpoint"
                        )
                elif self._loop.time() >= reopen_at:
                    reopen_at = math.inf
                    self._interrupted = True
                    self._close_link()
        finally:
            for topic in asked:
                del self._syncs[topic]
                self._unsubscribe(topic)
        self._failing = True
        raise CommunicationError(
            f"the publishing endpoint {self._server.pub_endpoint} does not answer"
        )

    def check(self) -> None:
        """See, in the background, that publications still arrive; if not, tell and reconnect."""
        if self._listeners and (self._check is None or self._check.done()):
            self._check = self._loop.create_task(self._see_or_tell(), name="descartes-feed-check")

    def found(self, server: ServerProfile) -> None:
        """The server is there (again): it may publish elsewhere now, or be another."""
        old, self._server = self._server, server
        if (old.pub_endpoint, old.server_id) != (server.pub_endpoint, server.server_id):
            self._interrupted = True
            self._close_link()
        if self._listeners:
            try:
                self.open()
            except DescartesError as error:
                self._tell(error)

    def fail(self, make_error: Callable[[], DescartesError], *, final: bool) -> None:
        """Tell every listener that the server cannot be reached."""
        for listener in self._everybody():
            listener.failed(make_error, final)

    async def aclose(self) -> None:
        """Close the socket and tell who still listens; closing twice is fine."""
        self._closed = True
        self._close_link()
        self.fail(lambda: CommunicationError("the client was disconnected"), final=True)
        for echo in self._syncs.values():
            if not echo.done():
                echo.set_exception(CommunicationError("the client was disconnected"))
                echo.exception()  # marks it as seen: nobody may be waiting any more
        if self._check is not None:
            self._check.cancel()
            await asyncio.gather(self._check, return_exceptions=True)

    async def _see_or_tell(self) -> None:
        try:
            await self.synced()
        except DescartesError as error:
            self._tell(error)

    def _tell(self, error: DescartesError) -> None:
        kind, words = type(error), str(error)
        self.fail(lambda: kind(words), final=False)

    def _socket(self) -> zmq.Socket[bytes] | None:
        link = self._link
        return None if link is None or link.channel.closed else link.socket

    def _close_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _subscribe(self, topic: bytes) -> None:
        if (socket := self._socket()) is not None:
            socket.subscribe(topic)

    def _unsubscribe(self, topic: bytes) -> None:
        if (socket := self._socket()) is not None:
            socket.unsubscribe(topic)

    def _connection_event(self, event: MonitorEvent) -> None:
        if event.event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            if self._interrupted:
                self._rejoined()
            self._interrupted = True

    def _rejoined(self) -> None:
        self._failing = False
        for listener in self._everybody():
            listener.rejoined()

    def _everybody(self) -> list[Listener]:
        """Every listener once, however many topics it has."""
        found: dict[int, Listener] = {}
        for known in self._listeners.values():
            found.update((id(listener), listener) for listener in known)
        return list(found.values())

    def _receive(self, run: tuple[tuple[Listener, ...] | None, list[Publication] | bytes]) -> None:
        listeners, content = run
        if isinstance(content, bytes):
            self._receive_frame(content)
        elif listeners and not self._foreign:
            for listener in listeners:
                listener.published(content)

    def _receive_frame(self, frame: bytes) -> None:
        topic, separator, body = frame.partition(b"\0")
        listeners = self._listening.get(topic)
        if listeners is None:
            if not separator:
                self.broken_messages += 1
                return
            if topic.startswith(_SYNC_PREFIX):
                self._echoed(topic, body.decode(errors="replace"))
                return
            listeners = self._find_listeners(topic)
        if listeners and not self._foreign:
            self._publish(listeners, body)

    def _echoed(self, topic: bytes, server_id: str) -> None:
        """An echo tells who sent it (or nothing); another server's is no answer."""
        expected = self._server.server_id
        if server_id and expected and server_id != expected:
            self._foreign = server_id
            self._failing = True
            return
        self._foreign = ""
        echo = self._syncs.get(topic)
        if echo is not None and not echo.done():
            echo.set_result(None)
        if self._failing:
            self._rejoined()

    def _find_listeners(self, topic: bytes) -> tuple[Listener, ...]:
        found = tuple(
            listener
            for key in (topic, topic[:1], topic[: len(STATUS_PREFIX)])
            for listener in self._listeners.get(key, ())
        )
        if len(self._listening) >= _LISTENING_LIMIT:
            self._forget_audiences()
        found = self._audiences.setdefault(found, found)
        self._listening[topic] = found
        return found

    def _forget_audiences(self) -> None:
        self._listening.clear()
        self._audiences.clear()

    def _publish(self, listeners: tuple[Listener, ...], body: bytes) -> None:
        try:
            message = deserialize_zmq_message(body)
        except ProtocolError:
            self.broken_messages += 1
            return
        if not isinstance(message, (StatusUpdate, LogStreamMessage)):
            self.broken_messages += 1
            return
        for listener in listeners:
            listener.published([message])
