"""The memory of replies that makes a request safe to send again.

A request is remembered under its principal, its request id and the digest of its whole
body: the same request sent again is answered from memory, another request that happens
to carry the same id is not. Bounded in bytes and in time. What is in the journal is
remembered by the next server too.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, NamedTuple

from .access import Principal
from .journal import Haste, NoJournal
from .journal_records import SavedReply

__all__ = ["UNFINISHED", "ReplyKey", "ReplyMemory", "Unfinished"]

ReplyKey = str

_DIGEST_BYTES = 16
_ENTRY_BYTES = 400  # about what a key and the bookkeeping of an entry take
_TELL_FORGOTTEN_BYTES = 512 * 1024


class Unfinished(enum.Enum):
    """Stands for the reply that there never was."""

    UNFINISHED = "begun by a server that ended before it was done"


UNFINISHED = Unfinished.UNFINISHED


class _Entry(NamedTuple):
    kept_at: float
    number: int
    reply: bytes | Literal[Unfinished.UNFINISHED]

    @property
    def size(self) -> int:
        return _ENTRY_BYTES + (0 if self.reply is UNFINISHED else len(self.reply))


class ReplyMemory:
    """Replies by request, the oldest forgotten first.

    ``limit_bytes`` bounds the replies that are kept, ``keep_secs`` their age. Requests that
    are still being worked on are known too, so that a repeat waits for the one reply.
    ``journal`` keeps the same replies under the memory's ``name``.
    """

    def __init__(
        self,
        limit_bytes: int,
        keep_secs: float,
        *,
        name: str = "",
        journal: NoJournal | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._keep_secs = keep_secs
        self._name = name
        self._journal = NoJournal() if journal is None else journal
        self._clock = clock
        self._bytes = 0
        self._kept: OrderedDict[ReplyKey, _Entry] = OrderedDict()
        self._in_progress: dict[ReplyKey, asyncio.Future[bytes] | None] = {}
        self._intents: dict[ReplyKey, int] = {}
        self._forgotten = 0  # the number of the last one
        self._forgotten_bytes = 0  # of those the journal was not told of

    @staticmethod
    def key(principal: Principal, request_id: str, body: bytes) -> ReplyKey | None:
        """Return what identifies a request; ``None`` if it has no id to be told apart by."""
        if not request_id:
            return None
        # The digest covers the request id, which is part of the body.
        digest = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()
        return f"{principal.name}/{digest}"

    def load(self, saved: SavedReply, *, now_ns: int) -> None:
        """Remember what an earlier server saved, in the order of age.

        The age of a reply goes by the wall clock. A request that was not finished has an age from
        now on, and comes last.
        """
        if saved.reply is None:
            self._intents[saved.key] = saved.number
            entry = _Entry(self._clock(), saved.number, UNFINISHED)
        else:
            age_secs = max(now_ns - saved.saved_at_ns, 0) / 1e9
            entry = _Entry(self._clock() - age_secs, saved.number, saved.reply)
        self._remember(saved.key, entry)

    def recall(
        self, key: ReplyKey
    ) -> bytes | asyncio.Future[bytes] | Literal[Unfinished.UNFINISHED] | None:
        """Return the reply, the future of a reply still being made, or ``None`` if new.

        ``UNFINISHED``: an earlier server began the request, and how far it came is not known.
        """
        if key in self._in_progress:
            future = self._in_progress[key]
            if future is None or future.cancelled():
                future = self._in_progress[key] = asyncio.get_running_loop().create_future()
            return future
        entry = self._kept.get(key)
        if entry is not None:
            if self._clock() - entry.kept_at <= self._keep_secs:
                return entry.reply
            self._forget(key)
        return None

    def begin(self, key: ReplyKey, *, intent: bool = False) -> None:
        """Say that this request is being worked on; :meth:`finish` must follow.

        With ``intent`` the journal has it too, and a later server knows that it was begun.
        """
        self._in_progress[key] = None
        if intent:
            self._intents[key] = self._journal.begin(self._name, key)

    def finish(self, key: ReplyKey, reply: bytes | None) -> None:
        """Give the reply to whoever repeated the request; ``None``: there will be none."""
        future = self._in_progress.pop(key, None)
        if future is not None and not future.done():
            if reply is None:
                future.cancel()
            else:
                future.set_result(reply)

    def keep(self, key: ReplyKey, reply: bytes, *, haste: Haste = Haste.TURN) -> None:
        """Remember a reply; makes room by forgetting the oldest."""
        self.withdraw(key)
        if _ENTRY_BYTES + len(reply) <= self._limit_bytes:
            number = self._journal.save_reply(self._name, key, reply, haste=haste)
            self._remember(key, _Entry(self._clock(), number, reply))
        elif key in self._kept:
            self._forget(key)

    def withdraw(self, key: ReplyKey) -> None:
        """Say that a request is not left unfinished: it has a reply, or nothing was done."""
        number = self._intents.pop(key, None)
        if number is not None:
            self._journal.withdraw(number)

    def expire(self) -> None:
        """Forget what is older than ``keep_secs``."""
        oldest_kept = self._clock() - self._keep_secs
        while self._kept:
            key, entry = next(iter(self._kept.items()))
            if entry.kept_at >= oldest_kept:
                break
            self._forget(key)
        self._tell_forgotten()

    @property
    def kept_bytes(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._kept)

    def _remember(self, key: ReplyKey, entry: _Entry) -> None:
        earlier = self._kept.pop(key, None)
        if earlier is not None:
            self._bytes -= earlier.size
        self._kept[key] = entry
        self._bytes += entry.size
        while self._bytes > self._limit_bytes:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: ReplyKey) -> None:
        entry = self._kept.pop(key)
        self._bytes -= entry.size
        if entry.reply is UNFINISHED:
            self.withdraw(key)
        else:
            self._forgotten = entry.number
            self._forgotten_bytes += entry.size
            if self._forgotten_bytes >= _TELL_FORGOTTEN_BYTES:
                self._tell_forgotten()

    def _tell_forgotten(self) -> None:
        """Have the journal forget too; not each reply by itself."""
        if self._forgotten_bytes:
            self._forgotten_bytes = 0
            self._journal.forget_replies(self._name, self._forgotten + 1)
