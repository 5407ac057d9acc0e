"""A client's command connection: one DEALER socket, kept alive, with many calls in flight.

libzmq reconnects; this module knows when (from the socket's monitor), asks the server who
it is before anything else is sent on a new connection, and decides what happens to the
calls that were in flight on the old one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any
from uuid import UUID

import zmq

from ._core import (
    CommandResponse,
    HealthCheckRequest,
    HealthCheckResponse,
    deserialize_zmq_message,
    peek_header,
    serialize_zmq_message,
    to_builtins,
)
from .calls import Call, PendingCalls
from .channel import Channel, MonitorEvent
from .config import ZmqRunnerConfig
from .errors import (
    AgentError,
    AgentTimeout,
    CommunicationError,
    DescartesError,
    ProtocolError,
    from_wire,
)
from .link import Link, descriptors_left
from .profile import RequestMemory, ServerProfile, refusal

__all__ = ["Connection"]

# A health check that gets no answer on a new connection is sent again after this long.
_PROBE_TIMEOUT_SECS = 2.0
_NOBODYS: RequestMemory = (None, None)
_SENT_TOGETHER = 1024
_IN_DOUBT = "; the request may have been carried out"

_SUCCEEDED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_LOST = (
    int(zmq.EVENT_DISCONNECTED)
    | int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
    | int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
    | int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
)
_CLOSED = int(zmq.EVENT_CLOSED)


class Connection:
    """The command connection to one endpoint.

    ``on_ready`` is called with the server's profile each time a connection has been made
    and the right server has answered, ``on_alive`` when it has answered a heartbeat;
    ``on_failed`` with a maker of errors when the time for reconnecting has run out or the
    wrong server has answered: from then on calls fail at once, until there is a new
    connection; on that they wait, as on every new one, until it is known who is there.
    """

    def __init__(
        self,
        config: ZmqRunnerConfig,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        on_ready: Callable[[ServerProfile], None],
        on_alive: Callable[[ServerProfile], None],
        on_failed: Callable[[Callable[[], DescartesError]], None],
    ) -> None:
        self.config = config
        self.connected = False
        """Whether a handshaken connection exists now, from the socket's monitor."""
        self.profile: ServerProfile | None = None
        self._memory = _NOBODYS
        """The profile's ``request_memory``: who knows what is sent now."""
        self.broken_replies = 0
        """Messages that are no answers: broken bytes, or a type without a request id."""
        self._context = context
        self._on_ready = on_ready
        self._on_alive = on_alive
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._calls = PendingCalls(self._loop, self._unanswered)
        self.new_request_id = self._calls.new_id
        """Returns a request id for one call."""
        self._unsent: deque[Call] = deque()
        self._probe: Call | None = None
        self._ready = False
        self._sending = False
        self._closed = False
        self._failure: Callable[[], DescartesError] | None = None
        self._changed = asyncio.Event()
        self._outcome: asyncio.Future[None] = self._loop.create_future()
        self._grace: asyncio.TimerHandle | None = None
        self._link = self._open_socket()
        self._supervisor = self._loop.create_task(self._supervise(), name="descartes-connection")

    @property
    def late_replies(self) -> int:
        """Answers that came when nobody waited for them any more, duplicates among them."""
        return self._calls.late_replies

    async def wait_ready(self) -> None:
        """Wait until the server has answered its first health check.

        Raises ``CommunicationError`` if nobody answers within
        ``connection_timeout_secs``, and the reason if the wrong server does.
        """
        timeout_secs = self.config.connection_timeout_secs
        try:
            async with asyncio.timeout(timeout_secs):
                await asyncio.shield(self._outcome)
        except TimeoutError:
            where = self.config.endpoint
            if self.connected:
                words = f"the server at {where} accepts connections but does not answer"
            elif not descriptors_left():
                words = f"cannot connect to {where}: no file descriptors are left"
            else:
                words = f"no server at {where} within {timeout_secs:g} s"
            raise CommunicationError(words) from None

    async def call(
        self,
        message: Any,
        expected: type,
        *,
        timeout_secs: float,
        repeatable: bool,
        agent_id: UUID | None = None,
    ) -> Any:
        """Send a request and return its answer, an ``expected``.

        ``repeatable`` is for requests that change nothing: they are sent again after a
        reconnect whatever the server promises. Raises ``AgentTimeout``,
        ``CommunicationError``, ``ProtocolError`` for an answer that cannot be one, and
        ``MessageTooLarge``; a refusal inside the answer is the caller's to raise.
        """
        if self._closed:
            raise CommunicationError("the client is disconnected", agent_id=_text(agent_id))
        if self._failure is not None:
            raise self._failure()
        body = serialize_zmq_message(message)
        # A call that is alone goes out before it is noted: its answer cannot be read before
        # the loop's next turn, and libzmq's thread is at work meanwhile.
        sent_to = self._send_lone(body)
        call = self._calls.open(message.request_id, body, timeout_secs, repeatable)
        call.sent_to = sent_to
        try:
            if sent_to is None:
                # Calls made in one turn of the loop are sent together at its end: libzmq's
                # thread need not be woken for each.
                self._unsent.append(call)
                if self._ready and not self._sending:
                    self._sending = True
                    self._loop.call_soon(self._send_soon)
            answer = await call.future
        except AgentError as error:
            error.agent_id = _text(agent_id)
            raise
        finally:
            self._calls.forget(call)
        if not isinstance(answer, expected):
            raise _unexpected(answer, expected, _text(agent_id))
        return answer

    async def aclose(self) -> None:
        """Fail what is in flight and close the socket; closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._supervisor.cancel()
            self._stop_grace()
            self._fail_calls(lambda: CommunicationError("the client was disconnected"))
            self._calls.close()
            self._close_socket()
            if not self._outcome.done():
                self._outcome.set_exception(CommunicationError("the client was disconnected"))
                self._outcome.exception()  # marks it as seen: nobody may be waiting
        await asyncio.gather(self._supervisor, return_exceptions=True)

    # The socket

    def _open_socket(self) -> Link:
        return Link(
            self._context,
            zmq.DEALER,
            self.config.endpoint,
            self.config,
            open_channel=lambda socket: Channel(
                socket, self._receive, on_writable=self._send_unsent
            ),
            on_event=self._connection_event,
            # Without a peer queue nothing: libzmq would keep messages over a disconnect and
            # send on its own what we have failed, or are about to repeat.
            options={zmq.IMMEDIATE: 1},
        )

    def _close_socket(self) -> None:
        self._link.close()
        self.connected = False
        self._ready = False

    def _connection_event(self, event: MonitorEvent) -> None:
        if event.event & _SUCCEEDED:
            self.connected = True
            self._failure = None  # that was the old connection's, and so was its time
            self._stop_grace()
            self._changed.set()
        elif event.event & _LOST or (event.event & _CLOSED and not self.config.auto_reconnect):
            self._lose()

    def _lose(self) -> None:
        """The connection is gone: keep what may be sent again, fail the rest."""
        self.connected = False
        self._ready = False
        self._changed.set()
        may_repeat = self.profile is not None and self.profile.idempotent
        self._unsent.clear()
        for call in self._calls:
            if call is self._probe:
                self._calls.fail(call, CommunicationError("the connection was lost"))
            elif call.sent_to is None or call.repeatable or may_repeat:
                self._unsent.append(call)
            else:
                self._calls.fail(call, self._broke())
        if not self.config.auto_reconnect:
            self._give_up()
        elif self._grace is None and self._failure is None and self.profile is not None:
            self._grace = self._loop.call_later(
                self.config.max_reconnect_attempts * self.config.reconnect_delay_secs,
                self._give_up,
            )

    def _broke(self) -> CommunicationError:
        return CommunicationError(
            f"the connection to {self.config.endpoint} broke before the answer came{_IN_DOUBT}"
        )

    def _unanswered(self, call: Call) -> AgentTimeout:
        words = f"no answer to {_operation(call.body)} from {self.config.endpoint}"
        words += f" within {call.timeout_secs:g} s"
        if call.sent_to is None:
            words += "; the request was not sent: there was no connection"
        elif call.in_doubt:
            words += _IN_DOUBT
        return AgentTimeout(words)

    def _give_up(self) -> None:
        words = f"the connection to {self.config.endpoint} is lost"
        if self.profile is None:
            words = f"no server at {self.config.endpoint}"
        self._fail(lambda: CommunicationError(words))

    def _fail(self, make_error: Callable[[], DescartesError]) -> None:
        """Fail every call, now and until the right server is back."""
        self._stop_grace()
        self._failure = make_error
        self._fail_calls(make_error)
        if not self._outcome.done():
            self._outcome.set_exception(make_error())
            self._outcome.exception()  # marks it as seen: connect() may have been cancelled
        self._on_failed(make_error)

    def _fail_calls(self, make_error: Callable[[], DescartesError]) -> None:
        self._unsent.clear()
        self._calls.fail_all(
            lambda call: (
                CommunicationError(f"{make_error()}{_IN_DOUBT}") if call.in_doubt else make_error()
            )
        )

    def _stop_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    # Sending and receiving

    def _send_lone(self, body: bytes) -> RequestMemory | None:
        """Send a request at once if no call is in flight; return who knows it then."""
        if self._ready and not self._calls and self._link.channel.send((b"", body)):
            return self._memory
        return None

    def _send_soon(self) -> None:
        self._sending = False
        if self._ready:
            self._send_unsent()

    def _send_unsent(self) -> None:
        """Send what waits, in order, until the socket is full; the probe before all else."""
        probe = self._probe
        if probe is not None and probe.sent_to is None:
            if not self._link.channel.send((b"", probe.body)):
                return
            probe.sent_to = _NOBODYS
        if not self._ready:
            return
        unsent = self._unsent
        while unsent:
            some = [unsent.popleft() for _ in range(min(len(unsent), _SENT_TOGETHER))]
            calls = [call for call in some if not call.future.done()]
            sent = self._link.channel.send_many([(b"", call.body) for call in calls])
            for call in calls[:sent]:
                call.sent_to = self._memory
            if sent < len(calls):
                unsent.extendleft(reversed(calls[sent:]))
                return

    def _receive(self, frames: list[bytes]) -> None:
        body = frames[1] if len(frames) > 1 and not frames[0] else frames[0]
        try:
            message = deserialize_zmq_message(body)
            request_id = message.request_id  # type: ignore[union-attr]
        except (ProtocolError, AttributeError) as error:
            self._receive_broken(body, error)
        else:
            self._calls.answer(request_id, message)

    def _receive_broken(self, body: bytes, error: Exception) -> None:
        """Count an answer that is none; a call that it names need not wait any longer."""
        self.broken_replies += 1
        header = peek_header(body)
        call = self._calls.find(header[1]) if header is not None and header[1] else None
        if call is not None:
            self._calls.fail(call, ProtocolError(f"the server's answer is broken: {error}"))

    # Who is there

    async def _supervise(self) -> None:
        """Ask each new connection who it is, and a standing one whether it is alive.

        Nothing ends it but ``aclose``: what goes wrong in one round, the next may do better.
        """
        while True:
            try:
                await self._supervise_once()
            except AgentTimeout:
                continue  # that took its time already
            except (DescartesError, zmq.ZMQError):
                await self._wait_for_change(self.config.reconnect_delay_secs)
            except Exception as error:
                self._loop.call_exception_handler(
                    {"message": "the connection's supervisor failed", "exception": error}
                )
                await self._wait_for_change(self.config.reconnect_delay_secs)

    async def _supervise_once(self) -> None:
        self._changed.clear()
        if self._link.channel.closed:
            self._link = self._open_socket()
        elif not self.connected:
            await self._changed.wait()
        else:
            self._judge(await self._ask_health(_PROBE_TIMEOUT_SECS))
            if self._ready:
                await self._watch()
            else:
                await self._wait_for_change(self.config.reconnect_delay_secs)

    def _judge(self, answer: HealthCheckResponse) -> None:
        """Go on with the server that answered, or refuse it."""
        config = self.config
        error = refusal(answer, endpoint=config.endpoint, expected_server_id=config.server_id)
        if error is not None:
            kind, words = type(error), str(error)
            self._ready = False
            self._fail(lambda: kind(words))
            return
        self.profile = profile = ServerProfile.from_health(
            answer, endpoint=config.endpoint, pub_endpoint=config.pub_endpoint
        )
        self._memory = profile.request_memory
        self._failure = None
        self._stop_grace()
        for call in self._unsent:
            is_known = profile.idempotent and call.sent_to == self._memory
            if call.sent_to is not None and not call.repeatable and not is_known:
                self._calls.fail(call, self._broke())
        self._ready = True
        self._send_unsent()
        if not self._outcome.done():
            self._outcome.set_result(None)
        self._on_ready(profile)

    async def _watch(self) -> None:
        """Check the server's health until the connection is lost, or is seen to be dead."""
        config = self.config
        interval_secs = config.heartbeat_interval_secs if config.enable_heartbeat else None
        while self._ready:
            self._changed.clear()
            if await self._wait_for_change(interval_secs):
                continue
            received = self._link.channel.received_count
            try:
                answer = await self._ask_health(
                    min(config.request_timeout_secs, config.heartbeat_interval_secs)
                )
            except AgentTimeout:
                if self._link.channel.received_count == received:
                    self._close_socket()  # up but dead: only a new socket gets out of it
                    self._lose()
            else:
                if refusal(answer, endpoint=config.endpoint, expected_server_id=config.server_id):
                    self._judge(answer)
                elif self.profile is not None:
                    self._on_alive(self.profile)

    async def _wait_for_change(self, timeout_secs: float | None) -> bool:
        """Wait until the connection is made or lost; ``False`` if the time ran out first."""
        try:
            async with asyncio.timeout(timeout_secs):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _ask_health(self, timeout_secs: float) -> HealthCheckResponse:
        """Ask past the queue of waiting calls; on a new connection they wait for the answer."""
        request_id = self._calls.new_id()
        body = serialize_zmq_message(HealthCheckRequest(request_id=request_id))
        self._probe = call = self._calls.open(request_id, body, timeout_secs, True)
        self._send_unsent()
        try:
            answer = await call.future
        finally:
            self._calls.forget(call)
            self._probe = None
        if not isinstance(answer, HealthCheckResponse):
            raise _unexpected(answer, HealthCheckResponse, None)
        return answer


def _text(agent_id: UUID | None) -> str | None:
    return None if agent_id is None else str(agent_id)


def _operation(body: bytes) -> str:
    """Return what a request asks for, in the words of the wire: ``pause``, ``list_agents``."""
    form = to_builtins(deserialize_zmq_message(body))
    return str(form.get("command_type", form["type"])).removesuffix("_request")


def _unexpected(answer: Any, expected: type, agent_id: str | None) -> DescartesError:
    """Return what to raise for an answer of another type than the request's.

    A server that cannot decode a request answers with a failed ``command_response``.
    """
    if isinstance(answer, CommandResponse) and not answer.success:
        return from_wire(answer.error, agent_id=agent_id)
    return ProtocolError(f"expected a {expected.__name__}, got a {type(answer).__name__}")
