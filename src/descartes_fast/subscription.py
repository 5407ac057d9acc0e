"""A bounded stream of messages: async iterator and async context manager in one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from ._core.stream import Stream

__all__ = ["Subscription"]

T = TypeVar("T")


class Subscription(Stream[T]):
    """A bounded stream of messages from a server.

    Iterate over it with ``async for``; leave it with ``aclose()`` or ``async with``. An
    error in the stream is raised at its place and does not end it: who iterates again gets
    what comes after. ``dropped`` counts the messages that were lost, here because nobody
    took them in time, or on the way where that can be seen.
    """

    def __init__(
        self, *, limit: int, on_taken: Callable[[T | Exception], None] | None = None
    ) -> None:
        super().__init__(on_taken)
        self.dropped = 0
        self._limit = limit
        self._troubled = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None
        """What a subclass does in the background; ended and joined by ``aclose``."""

    async def _wait(self) -> T:
        while not self._entries:
            if self._ended:
                raise StopAsyncIteration
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        return self._take()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the subscription and forget what was not taken; closing twice is fine."""
        self._entries.clear()
        self._end()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def finished(self) -> bool:
        """Whether nothing more comes and nothing goes on behind it."""
        return self._ended and (self._task is None or self._task.done())

    def _put(self, entry: T | Exception) -> None:
        """Append an entry; at the limit the oldest message goes and is counted.

        An error takes nobody's place and is never pushed out.
        """
        if self._ended:
            return
        entries = self._entries
        if len(entries) >= self._limit and not isinstance(entry, Exception):
            self._push_out()
        entries.append(entry)
        if self._waiters:
            self._wake()

    def _put_all(self, entries: Sequence[T]) -> None:
        """Append messages, as ``_put`` does one by one; who waits is woken once."""
        if len(self._entries) + len(entries) > self._limit:
            for entry in entries:
                self._put(entry)
        elif not self._ended:
            self._entries.extend(entries)
            if self._waiters:
                self._wake()

    def _push_out(self) -> None:
        for position, entry in enumerate(self._entries):
            if not isinstance(entry, Exception):
                del self._entries[position]
                self._overflow(entry)
                return

    def _trouble(self, error: Exception) -> None:
        """Tell that the whole stream is disturbed: once, until ``_recovered`` and taken."""
        if not self._troubled and self._untaken is None:
            self._untaken = error
            self._put(error)
        self._troubled = True

    def _recovered(self) -> None:
        """The stream goes on: the next trouble is news again."""
        self._troubled = False

    def _end(self) -> None:
        """Let the iteration stop after the entries that are there."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _overflow(self, entry: T) -> None:
        """A message was pushed out; for subclasses that can do something about it."""
        self.dropped += 1
