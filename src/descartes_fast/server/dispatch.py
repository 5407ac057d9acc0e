"""A request's bytes become its reply's bytes; knows no sockets.

What can be answered from memory is answered at once; for the rest the caller gets a coroutine
to run beside everything else. An exception becomes the response that says so; a coroutine is
cancelled only by whoever runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Literal, cast

from .._core import (
    BatchControlCommand,
    ControlCommand,
    ControlCommandType,
    CustomActionRequest,
    ListAgentsRequest,
    SpawnRequest,
    ZmqMessage,
    deserialize_zmq_message,
    peek_header,
    serialize_zmq_message,
)
from .._core import replace as replaced
from ..errors import (
    AgentError,
    ExecutionError,
    InvalidContext,
    MessageTooLarge,
    ProtocolError,
    ServerBusy,
    ShuttingDown,
    WouldBlock,
)
from .access import Principal
from .handlers import Handler, Handlers
from .journal import Haste, NoJournal
from .payloads import MORE_THAN_SIGNALS, signal_number
from .refusals import Request, Response, as_agent_error, refusal, refusal_of_unknown
from .registry import Registry
from .remembered import in_short, is_short, made_again
from .replay import Replay, ReplySlot
from .replies import UNFINISHED, Unfinished
from .statistics import Counters

__all__ = ["Dispatcher"]

_log = logging.getLogger(__name__)

_LONGEST_REQUEST_ID = 1024
_QUICK_COMMANDS = frozenset({ControlCommandType.GET_STATUS, ControlCommandType.STREAM_LOGS})

# Nothing was done and nothing decided: a repeat may fare better.
_NOT_REMEMBERED = (ServerBusy, ShuttingDown, WouldBlock)

# Carried out whatever the journal says: a full disk must not keep an agent running.
_ENDINGS = frozenset({ControlCommandType.STOP, ControlCommandType.KILL})

_LONG_ID = InvalidContext(f"a request id may have {_LONGEST_REQUEST_ID} characters")
_UNFINISHED = ExecutionError(
    "the server ended while this was being carried out: it may have been done, in part or "
    "altogether, and is not done again"
)
_IN_PROGRESS = ExecutionError(
    "this is being carried out, and too much is in progress to wait for it: ask again for the reply"
)


class Dispatcher:
    """Has requests carried out, once each, and answers those that come again from memory."""

    def __init__(
        self,
        handlers: Handlers,
        *,
        registry: Registry,
        replay: Replay,
        journal: NoJournal,
        counters: Counters,
        server_id: str,
    ) -> None:
        self._handlers = handlers
        self._registry = registry
        self._replay = replay
        self._journal = journal
        self._counters = counters
        self._server_id = server_id

    def dispatch(
        self, body: bytes, principal: Principal, *, room: bool = True
    ) -> bytes | Coroutine[Any, Any, bytes] | None:
        """Return the reply, a coroutine that returns it, or ``None`` if there can be none.

        What a coroutine returns is to be sent by :meth:`then`. Without ``room`` for one more
        coroutine, what may need one is refused. Never raises.
        """
        try:
            message = deserialize_zmq_message(body)
        except ProtocolError as error:
            return self._refuse_broken(body, error)
        handler = self._handlers.of(message)
        if handler is None:
            return self._refuse_no_request(message)
        request = cast(Request, message)
        if len(request.request_id) > _LONGEST_REQUEST_ID:
            return self._refuse(_with_short_id(request), _LONG_ID)
        slot = self._replay.slot(principal, request, body)
        if slot is not None:
            known = slot.memory.recall(slot.key)
            if known is not None:
                return self._repeat(request, slot, known, room=room)
            if type(request) is SpawnRequest and self._registry.spawned_by(slot.key) is not None:
                return self._answer(handler, request, slot)
        if not room and not _is_quick(request):
            return self._refuse(request, ServerBusy("too many requests are in progress"))
        if slot is not None and self._journal.trouble is not None and not _is_ending(request):
            return self._refuse(request, ServerBusy(self._journal.trouble))
        return self._answer(handler, request, slot)

    def then(self, send: Callable[[], None]) -> None:
        """Call ``send`` when what was done so far is in the journal, or cannot be: at once, if so.

        What was done was done: its reply goes out also when it cannot be stored.
        """
        self._journal.then(send)

    async def committed(self) -> None:
        """Return when all that waits in :meth:`then` was called."""
        with contextlib.suppress(ServerBusy):
            await self._journal.committed()

    def _repeat(
        self,
        request: Request,
        slot: ReplySlot,
        known: bytes | asyncio.Future[bytes] | Literal[Unfinished.UNFINISHED],
        *,
        room: bool,
    ) -> bytes | Coroutine[Any, Any, bytes]:
        """Answer a request that came before: there is always room for what is known."""
        if known is UNFINISHED:
            return self._refuse(request, _UNFINISHED, slot)
        self._counters.replayed += 1
        if not isinstance(known, bytes):
            return _wait_for(known) if room else self._refuse(request, _IN_PROGRESS)
        if is_short(known):
            try:
                known = self._encoded(request, made_again(known, request, self._registry))
            except Exception as error:
                return self._refuse(request, as_agent_error(error))
        return _later(known) if self._journal.keeps else known

    def _keep(self, request: Request, slot: ReplySlot, response: Response, reply: bytes) -> None:
        kept = in_short(response, reply, self._registry, is_read=slot.is_read)
        slot.memory.keep(slot.key, kept, haste=_haste(request))

    def _answer(
        self, handler: Handler, request: Request, slot: ReplySlot | None
    ) -> bytes | Coroutine[Any, Any, bytes]:
        try:
            outcome = handler(request, "" if slot is None else slot.key)
            if type(outcome) is CoroutineType:
                if slot is not None:
                    slot.memory.begin(slot.key, intent=slot.intent)
                return self._answer_later(request, outcome, slot)
            reply = self._encoded(request, outcome)
        except Exception as error:
            return self._refuse(request, as_agent_error(error), slot)
        if slot is None:
            return reply
        self._keep(request, slot, outcome, reply)
        return _later(reply) if self._journal.keeps else reply

    async def _answer_later(
        self, request: Request, outcome: Coroutine[Any, Any, Response], slot: ReplySlot | None
    ) -> bytes:
        reply: bytes | None = None
        is_begun = False
        try:
            if slot is not None and slot.intent and self._journal.keeps:
                await self._journal.committed()
            is_begun = True
            response = await outcome
            reply = self._encoded(request, response)
            if slot is not None:
                self._keep(request, slot, response, reply)
        except asyncio.CancelledError:
            if self._handlers.accepting:
                raise
            if is_begun and slot is not None and slot.intent:
                reply = self._refuse(request, _UNFINISHED, slot)
            else:
                reply = self._refuse(request, ShuttingDown("the server ended before this did"))
                if slot is not None:
                    slot.memory.withdraw(slot.key)
        except Exception as error:
            failure = as_agent_error(error)
            reply = self._refuse(request, failure, slot)
            if slot is not None and isinstance(failure, _NOT_REMEMBERED):
                slot.memory.withdraw(slot.key)
        finally:
            outcome.close()  # if it was never begun
            if slot is not None:
                slot.memory.finish(slot.key, reply)
        return reply

    def _encoded(self, request: Request, response: Response) -> bytes:
        try:
            return serialize_zmq_message(response)
        except MessageTooLarge as error:
            if self._replay.covers(request):  # not the fault of the request, which was carried out
                return self._refuse(request, as_agent_error(error))
            return self._refuse(request, InvalidContext(f"{error}: ask for less at once"))

    # -- refusals --------------------------------------------------------------------

    def _refuse(self, request: Request, error: AgentError, slot: ReplySlot | None = None) -> bytes:
        self._counters.errors += 1
        agent = (
            self._registry.find(request.agent_id)
            if isinstance(request, (ControlCommand, CustomActionRequest))
            else None
        )
        status = None if agent is None else agent.status
        try:
            reply = serialize_zmq_message(
                refusal(request, error, server_id=self._server_id, status=status)
            )
        except Exception:
            # Ids and words are bounded, so this cannot be; whoever waits must not pay if it is.
            _log.exception("a refusal cannot be sent")
            unsaid = ExecutionError("the reason for the refusal cannot be sent")
            reply = serialize_zmq_message(refusal_of_unknown(request.request_id, unsaid))
        if slot is not None and not isinstance(error, _NOT_REMEMBERED):
            slot.memory.keep(slot.key, reply)
        return reply

    def _refuse_broken(self, body: bytes, error: ProtocolError) -> bytes | None:
        header = peek_header(body)
        if header is None or header[1] is None:
            self._counters.malformed += 1  # there is nobody to tell
            return None
        return self._refuse_unknown(header[1], InvalidContext(str(error)))

    def _refuse_no_request(self, message: ZmqMessage) -> bytes | None:
        """Refuse a response or a publication, which only a server sends."""
        request_id = getattr(message, "request_id", None)
        if request_id is None:
            self._counters.malformed += 1  # there is nobody to tell
            return None
        error = InvalidContext(f"a server takes requests, not {type(message).__name__}")
        return self._refuse_unknown(request_id, error)

    def _refuse_unknown(self, request_id: str, error: AgentError) -> bytes:
        self._counters.errors += 1
        if len(request_id) > _LONGEST_REQUEST_ID:
            request_id, error = _short(request_id), _LONG_ID
        return serialize_zmq_message(refusal_of_unknown(request_id, error))


def _short(request_id: str) -> str:
    return request_id[:_LONGEST_REQUEST_ID]


def _with_short_id(request: Request) -> Request:
    return replaced(request, request_id=_short(request.request_id))


def _is_ending(request: Request) -> bool:
    if not isinstance(request, (ControlCommand, BatchControlCommand)):
        return False
    if request.command_type is ControlCommandType.SIGNAL:
        with contextlib.suppress(InvalidContext):
            return signal_number(request.payload) == signal.SIGKILL
    return request.command_type in _ENDINGS


def _haste(request: Request) -> Haste:
    """Tell how soon the journal must have the reply to what was done.

    That a signal was sent the keeper knows by the request's key, and would answer a repeat.
    """
    match request:
        case SpawnRequest():
            return Haste.GROUP
        case (
            ControlCommand(command_type=ControlCommandType.SIGNAL)
            | BatchControlCommand(command_type=ControlCommandType.SIGNAL)
        ) if signal_number(request.payload) not in MORE_THAN_SIGNALS:
            return Haste.SPARE
        case _:
            return Haste.TURN


def _is_quick(request: Request) -> bool:
    match request:
        case ControlCommand():
            return request.command_type in _QUICK_COMMANDS
        case ListAgentsRequest():
            return True
        case _:
            return False


async def _later(reply: bytes) -> bytes:
    return reply


async def _wait_for(reply: asyncio.Future[bytes]) -> bytes:
    return await asyncio.shield(reply)
