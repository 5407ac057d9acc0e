"""Which requests are answered from memory when they come again, and from which memory.

Commands that change something, actions and consuming reads have a memory each: however
much data reads and actions answer with, the reply to a spawn is not forgotten for it, and
the spawn that comes again makes no second agent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from .._core import (
    BatchControlCommand,
    ControlCommand,
    ControlCommandType,
    CustomActionRequest,
    SpawnRequest,
)
from .access import Principal
from .journal import NoJournal
from .operations import consumes, mutates
from .refusals import Request
from .replies import ReplyKey, ReplyMemory

__all__ = ["Replay", "ReplySlot"]


@dataclass(frozen=True, slots=True)
class ReplySlot:
    """The place of one request's reply.

    ``intent`` says that the request must be known to be begun before it is carried out: nobody
    but the handler could tell afterwards whether it was. ``is_read`` says that the reply tells
    bytes that are in the output as well.
    """

    memory: ReplyMemory
    key: ReplyKey
    intent: bool
    is_read: bool


class Replay:
    """The memories of a server; each is bounded by ``limit_bytes`` and ``keep_secs``.

    What is in ``journal`` is remembered from the start.
    """

    def __init__(
        self, limit_bytes: int, keep_secs: float, journal: NoJournal | None = None
    ) -> None:
        def memory(name: str) -> ReplyMemory:
            return ReplyMemory(limit_bytes, keep_secs, name=name, journal=journal)

        self._changes, self._actions = memory("changes"), memory("actions")
        self._reads = memory("reads")
        self._memories = {
            "changes": self._changes,
            "actions": self._actions,
            "reads": self._reads,
        }
        if journal is not None:
            self._load(journal)

    def slot(self, principal: Principal, request: Request, body: bytes) -> ReplySlot | None:
        """Return where the reply to a request belongs; ``None`` if it may be made anew."""
        memory = self._memory_of(request)
        key = None if memory is None else memory.key(principal, request.request_id, body)
        if memory is None or key is None:
            return None
        return ReplySlot(memory, key, memory is self._actions, memory is self._reads)

    def covers(self, request: Request) -> bool:
        """Tell whether carrying out the request twice would not be the same as once."""
        return self._memory_of(request) is not None

    def expire(self) -> None:
        """Forget what is too old."""
        for memory in self._memories.values():
            memory.expire()

    def _load(self, journal: NoJournal) -> None:
        now_ns = time.time_ns()
        for saved in sorted(journal.replies(), key=lambda saved: saved.reply is None):
            memory = self._memories.get(saved.memory)
            if memory is not None:
                memory.load(saved, now_ns=now_ns)
        self.expire()

    def _memory_of(self, request: Request) -> ReplyMemory | None:
        match request:
            case SpawnRequest():
                return self._changes
            case CustomActionRequest():
                return self._actions
            case ControlCommand() | BatchControlCommand():
                command = request.command_type
                if command is ControlCommandType.CUSTOM_ACTION:
                    return self._actions
                if mutates(command):
                    return self._changes
                # A batch never reads: its results have no room for data.
                if isinstance(request, ControlCommand) and consumes(command, request.payload):
                    return self._reads
        return None
