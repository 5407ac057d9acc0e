"""What must survive a restart of the server: agents, read cursors, and replies.

What is recorded is in memory at once and on the disk with the next group: one transaction,
whole or not at all. All that one step of the event loop records is in one group. SQLite's WAL with
``synchronous=NORMAL``: a crash of any process loses nothing that was committed, a power cut may
cost the last moments.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import secrets
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self
from uuid import UUID

from ..errors import ServerBusy
from .journal_changes import Changes
from .journal_records import AgentRecord, SavedReply
from .journal_store import JournalStore

__all__ = ["AgentRecord", "Haste", "Journal", "NoJournal"]

_log = logging.getLogger(__name__)

_RETRY_SECS = 1.0
_GROUP_SECS = 0.002
"""A patient group waits so long after the commit before it. A spawn is recorded three times, and
many that start at once share their commits; one by itself does not wait."""
_CROWDED_GROUP_SECS = 0.008
_SPARE_GROUP_SECS = 0.05
"""What nobody waits for: a thousand replies to signals, which then cost a microsecond each."""
_BUSY_GROUP_REPLIES = 48
_QUIET_TURNS = 2
"""Replies wait for those of the loop's next turns until they are so many, or so many turns bring
none: a commit costs 90 us, as much as one or two of them. That is some microseconds for a lone one;
of many that are asked for at once requests come in one turn, and answers in another."""
_CHECKPOINT_BYTES = 8 * 1024 * 1024
_COMMIT_BYTES = 8 * 1024
"""The log begins anew after as many bytes of replies, or commits that count as so many each."""


class Haste(enum.Enum):
    """When a reply is to be committed, and whether it may go out before that."""

    TURN = "at the end of the loop's turn"
    GROUP = "with the next group"
    """For the sake of others that are :attr:`~NoJournal.spawning`, if there are any."""
    SPARE = "within 50 ms"
    """Nobody waits for it: the keeper knows what was answered, should this process be killed before
    that. The journal has it for the time when the keeper has forgotten."""


class NoJournal:
    """The journal's interface, with nothing kept: ``journal = false``."""

    def __init__(self) -> None:
        self.journal_id = secrets.token_hex(16)
        """Tells one memory of requests from another: kept with the journal."""
        self.instance = secrets.token_hex(8)
        """What the agents of this state directory are marked with."""
        self.trouble: str | None = None
        """Why nothing can be committed at the moment, in words."""
        self.spawning = 0
        """How many spawns are under way: a lone one has nobody to share a commit with."""
        self.is_crowded = False
        """Whether so much is under way that nobody gets on sooner if a patient group is committed
        within 2 ms: then it waits for up to 8 ms, and there are fewer."""

    @property
    def keeps(self) -> bool:
        """Whether anything is kept, and :meth:`committed` worth waiting for."""
        return False

    def agents(self) -> list[AgentRecord]:
        """Return, once, the agents that were in the journal when it was opened, by their age."""
        return []

    def replies(self) -> list[SavedReply]:
        """Return, once, the replies that were in the journal when it was opened, by their age."""
        return []

    def save_agent(self, record: AgentRecord) -> None:
        """Record an agent's state; it takes the place of what is known of that agent."""

    def remove_agent(self, agent_id: UUID) -> None:
        """Record that an agent's retention is over, or that it never came to be."""

    def save_cursor(self, agent_id: UUID, stream: str, offset: int) -> None:
        """Record how far ``stream`` ("stdout" or "stderr") was read by consuming reads."""

    def begin(self, memory: str, key: str) -> int:
        """Record that a request is being carried out; return the number of that."""
        return 0

    def save_reply(self, memory: str, key: str, reply: bytes, *, haste: Haste = Haste.TURN) -> int:
        """Record a reply; return its number. All else is recorded with ``Haste.GROUP``."""
        return 0

    def withdraw(self, number: int) -> None:
        """Record that what :meth:`begin` gave this number is over."""

    def forget_replies(self, memory: str, before: int) -> None:
        """Record that replies with lower numbers are not needed any more."""

    def then(self, callback: Callable[[], None]) -> None:
        """Call back when all that was recorded so far is committed: at once, if it is.

        While the disk refuses it: when that is known. Replies that are ``Haste.SPARE`` count as
        committed, here and below.
        """
        callback()

    async def committed(self, *, at_once: bool = False) -> None:
        """Return when all that was recorded so far is committed; ``at_once``: in no patient group.

        Raises ``ServerBusy`` with the reason while the disk refuses it; what was recorded is kept,
        and tried again every second.
        """

    async def stored(self) -> None:
        """Return when all that was recorded so far is committed, however long the disk refuses."""
        while True:
            try:
                return await self.committed()
            except ServerBusy:
                await asyncio.sleep(_RETRY_SECS)

    def look(self) -> None:
        """See whether the file is still where it was; while it is not, nothing is committed."""

    async def aclose(self) -> None:
        """Commit what is left and close; twice is fine."""


class Journal(NoJournal):
    """The journal in a file. Made by :meth:`open`, then used on one event loop."""

    def __init__(self, store: JournalStore) -> None:
        super().__init__()
        self.journal_id = store.journal_id
        self.instance = store.instance
        self._store = store
        self._last_number = max((saved.number for saved in store.replies), default=0)
        self._number_committed = self._number_seen = self._last_number
        self._quiet_turns = 0
        self._pending = Changes()
        self._is_pending = False
        """Whether there is something to be committed that somebody may wait for."""
        self._has_spares = False
        """Whether there is something else to be committed."""
        self._is_patient = True
        """Whether the next commit is not to come at once, at the end of this turn."""
        self._committed_at = 0.0
        self._callbacks: list[Callable[[], None]] = []
        self._next: asyncio.Handle | None = None
        self._logged_bytes = 0
        self._is_missing = False
        self._checkpointing: asyncio.Task[None] | None = None
        self._is_held = False
        self._closed = False

    @classmethod
    def open(cls, path: Path, *, reply_bytes: int | None = None) -> Self:
        """Return the journal in the file ``path``, made if there is none; blocks on the disk.

        Of the replies in it only the newest ``reply_bytes`` of each memory are read. Raises
        ``UsageError`` for a file of a newer version, one that is broken, and one that cannot be
        used at the moment.
        """
        return cls(JournalStore(path, reply_bytes))

    @property
    def keeps(self) -> bool:
        return True

    def agents(self) -> list[AgentRecord]:
        found, self._store.agents = self._store.agents, []
        return found

    def replies(self) -> list[SavedReply]:
        found, self._store.replies = self._store.replies, []
        return found

    def save_agent(self, record: AgentRecord) -> None:
        self._pending.save_agent(record.id, record)
        self._recorded()

    def remove_agent(self, agent_id: UUID) -> None:
        self._pending.save_agent(agent_id, None)
        self._recorded()

    def save_cursor(self, agent_id: UUID, stream: str, offset: int) -> None:
        self._pending.cursors[agent_id, stream] = offset
        self._recorded()

    def begin(self, memory: str, key: str) -> int:
        number = self._last_number = self._last_number + 1
        self._pending.begun[number] = (memory, key)
        self._recorded()
        return number

    def save_reply(self, memory: str, key: str, reply: bytes, *, haste: Haste = Haste.TURN) -> int:
        number = self._last_number = self._last_number + 1
        replies = self._pending.replies.get(memory)
        if replies is None:
            replies = self._pending.replies[memory] = []
        replies.append((number, key, reply))
        self._logged_bytes += len(reply)
        if haste is Haste.GROUP and self.spawning:
            self._recorded()
        elif haste is Haste.SPARE and not self._is_pending:
            self._spared()
        elif self._is_patient:  # a spare one goes out with what is pending: that is to be soon
            self._hurry()
        return number

    def withdraw(self, number: int) -> None:
        self._pending.withdraw(number)
        self._recorded()

    def forget_replies(self, memory: str, before: int) -> None:
        self._pending.forget(memory, before)
        self._spared()

    def then(self, callback: Callable[[], None]) -> None:
        if self._is_pending and self.trouble is None:
            self._callbacks.append(callback)
        else:
            callback()

    async def committed(self, *, at_once: bool = False) -> None:
        if self._is_pending and self.trouble is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._callbacks.append(partial(_resolve, waiter))
            if at_once and self._is_patient:
                self._hurry()
            await waiter
        if self.trouble is not None:
            raise ServerBusy(self.trouble)

    def look(self) -> None:
        if self._store.missing() is not None and not self._closed:
            self._is_missing = True
            self._commit()  # which fails, and is tried until the file is back

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if self._next is not None:
                self._next.cancel()
            if self._checkpointing is not None:
                await asyncio.wait({self._checkpointing})
            if self._is_pending or self._has_spares:
                self._commit()
            if self.trouble is not None:
                _log.error("%s; what was recorded last is lost", self.trouble)
            await asyncio.to_thread(self._store.close)

    def _recorded(self) -> None:
        if not self._is_pending:
            self._is_pending = True
            self._commit_after(_CROWDED_GROUP_SECS if self.is_crowded else _GROUP_SECS)

    def _spared(self) -> None:
        if not self._is_pending and not self._has_spares:
            self._has_spares = True
            self._commit_after(_SPARE_GROUP_SECS)

    def _commit_after(self, secs: float) -> None:
        """Commit so long after the last commit, and not when it was to be before."""
        if self._next is not None:
            self._next.cancel()
        loop = asyncio.get_running_loop()
        self._next = loop.call_at(self._committed_at + secs, self._commit)

    def _hurry(self) -> None:
        self._is_pending = True
        self._is_patient = False
        if self._next is not None:
            self._next.cancel()
        self._next = asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        """Commit, unless the next turn may bring more replies."""
        if self._last_number != self._number_seen:
            self._quiet_turns = 0
        else:
            self._quiet_turns += 1
        self._number_seen = self._last_number
        are_many = self._last_number - self._number_committed >= _BUSY_GROUP_REPLIES
        if are_many or self._quiet_turns >= _QUIET_TURNS:
            self._commit()
        else:
            self._next = asyncio.get_running_loop().call_soon(self._end_turn)

    def _commit(self) -> None:
        self._next = None
        if self._is_held:
            # It comes when that is over. Of spare ones alone nobody must think that it is pending.
            self._is_patient = not self._is_pending
            return
        self._number_committed = self._number_seen = self._last_number
        changes, self._pending = self._pending, Changes()
        callbacks, self._callbacks = self._callbacks, []
        self._is_pending = self._has_spares = False
        self._is_patient = True
        try:
            if self._is_missing:
                self._require_file()
            self._store.write(changes)
        except Exception as error:
            self._fail(changes, error)
        else:
            self.trouble = None
            self._committed_at = asyncio.get_running_loop().time()
            self._logged_bytes += _COMMIT_BYTES
            if self._logged_bytes >= _CHECKPOINT_BYTES and self._checkpointing is None:
                self._start_checkpoint()
        for callback in callbacks:
            try:
                callback()
            except Exception as error:  # the others are not to blame
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a reply was not sent after its commit", "exception": error}
                )

    def _require_file(self) -> None:
        missing = self._store.missing()
        if missing is not None:
            raise FileNotFoundError(missing)
        self._is_missing = False

    def _start_checkpoint(self) -> None:
        if not self._closed:
            loop = asyncio.get_running_loop()
            self._checkpointing = loop.create_task(self._checkpoint(), name="journal-checkpoint")

    async def _checkpoint(self) -> None:
        """Write the log into the database and begin it anew, all in a thread.

        Commits wait for the end of it; most is done before they have to.
        """
        self._logged_bytes = 0
        try:
            if self.trouble is None:
                await asyncio.to_thread(self._store.checkpoint)
            self._is_held = True
            await asyncio.to_thread(self._store.begin_log)
        except sqlite3.Error as error:
            if self.trouble is None:  # else it is said already
                _log.error("the journal's log stays as it is, %s", error)
        finally:
            self._checkpointing = None
            self._is_held = False
            if (self._is_pending or self._has_spares) and self._next is None:
                self._commit()

    def _retry(self) -> None:
        """Try again what was refused: first make room in the log, where the disk has none."""
        self._next = None
        if self._checkpointing is None:
            self._start_checkpoint()

    def _fail(self, changes: Changes, error: Exception) -> None:
        if self.trouble is None:
            expected = isinstance(error, sqlite3.Error)
            _log.error("the journal cannot be written: %s", error, exc_info=not expected)
        self.trouble = f"the journal cannot be written: {error}"
        self._pending = changes
        self._is_pending, self._is_patient = True, False
        if not self._closed:
            with contextlib.suppress(RuntimeError):
                loop = asyncio.get_running_loop()
                self._next = loop.call_later(_RETRY_SECS, self._retry)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
