"""The memory of replies that makes a request safe to send again.

A request is remembered under its principal, its request id and the digest of its whole
body: the same request sent again is answered from memory, another request that happens
to carry the same id is not. Bounded in bytes and in time.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from .access import Principal

__all__ = ["ReplyKey", "ReplyMemory"]

ReplyKey = str

_DIGEST_BYTES = 16
_ENTRY_BYTES = 400  # about what a key and the bookkeeping of an entry take


class ReplyMemory:
    """Replies by request, the oldest forgotten first.

    ``limit_bytes`` bounds the replies that are kept, ``keep_secs`` their age. Requests that
    are still being worked on are known too, so that a repeat waits for the one reply.
    """

    def __init__(
        self,
        limit_bytes: int,
        keep_secs: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._keep_secs = keep_secs
        self._clock = clock
        self._bytes = 0
        self._kept: OrderedDict[ReplyKey, tuple[float, bytes]] = OrderedDict()
        self._in_progress: dict[ReplyKey, asyncio.Future[bytes] | None] = {}

    @staticmethod
    def key(principal: Principal, request_id: str, body: bytes) -> ReplyKey | None:
        """Return what identifies a request; ``None`` if it has no id to be told apart by."""
        if not request_id:
            return None
        # The digest covers the request id, which is part of the body.
        digest = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()
        return f"{principal.name}/{digest}"

    def recall(self, key: ReplyKey) -> bytes | asyncio.Future[bytes] | None:
        """Return the reply, the future of a reply still being made, or ``None`` if new."""
        entry = self._kept.get(key)
        if entry is not None:
            if self._clock() - entry[0] <= self._keep_secs:
                return entry[1]
            self._forget(key)
        if key in self._in_progress:
            future = self._in_progress[key]
            if future is None or future.cancelled():
                future = self._in_progress[key] = asyncio.get_running_loop().create_future()
            return future
        return None

    def begin(self, key: ReplyKey) -> None:
        """Say that this request is being worked on; :meth:`finish` must follow."""
        self._in_progress[key] = None

    def finish(self, key: ReplyKey, reply: bytes | None, *, keep: bool = True) -> None:
        """Give the reply to whoever repeated the request, and keep it unless told otherwise.

        ``None`` says that there will be no reply.
        """
        future = self._in_progress.pop(key, None)
        if future is not None and not future.done():
            if reply is None:
                future.cancel()
            else:
                future.set_result(reply)
        if reply is not None and keep:
            self.keep(key, reply)

    def keep(self, key: ReplyKey, reply: bytes) -> None:
        """Remember a reply; makes room by forgetting the oldest."""
        if key in self._kept:
            self._forget(key)
        size = len(reply) + _ENTRY_BYTES
        if size > self._limit_bytes:
            return
        self._kept[key] = (self._clock(), reply)
        self._bytes += size
        while self._bytes > self._limit_bytes:
            self._forget(next(iter(self._kept)))

    def expire(self) -> None:
        """Forget what is older than ``keep_secs``."""
        oldest_kept = self._clock() - self._keep_secs
        while self._kept:
            key, (kept_at, _) = next(iter(self._kept.items()))
            if kept_at >= oldest_kept:
                return
            self._forget(key)

    @property
    def kept_bytes(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._kept)

    def _forget(self, key: ReplyKey) -> None:
        _, reply = self._kept.pop(key)
        self._bytes -= len(reply) + _ENTRY_BYTES
