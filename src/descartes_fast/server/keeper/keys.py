"""What was done under a key is answered again, not done again.

The server sends a key with what must not be done twice and repeats the request when it
was killed between the doing and the storing of the reply. A refusal did nothing, so it is
not remembered: the repeat finds out anew.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from .protocol import compact_json

__all__ = ["KeyMemory"]

_KEEP_SECS = 600.0
_LIMIT_BYTES = 16 * 1024 * 1024  # some 40,000 requests: 66 a second for ten minutes
_ENTRY_BYTES = 350  # the objects of one entry beside its texts


class KeyMemory:
    """Replies by key, for ten minutes and up to a number of bytes; the oldest go first."""

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._replies: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._bytes = 0

    def recall(self, key: str) -> dict[str, Any] | None:
        """Return the reply to what was done under ``key``, or ``None`` if nothing was."""
        self._drop_old()
        entry = self._replies.get(key)
        reply: dict[str, Any] | None = None if entry is None else json.loads(entry[1])
        return reply

    def remember(self, key: str, reply: Mapping[str, Any]) -> None:
        """Keep ``reply``."""
        self._put(key, time.monotonic() + _KEEP_SECS, compact_json(reply))

    def saved(self) -> list[tuple[str, float, str]]:
        """Return everything, for :meth:`restore`."""
        return [(key, until, text) for key, (until, text) in self._replies.items()]

    def restore(self, saved: list[tuple[str, float, str]]) -> None:
        """Take what :meth:`saved` returned, on the same machine since the same boot."""
        for key, until, text in saved:
            self._put(key, until, text)

    def _put(self, key: str, until: float, text: str) -> None:
        self._replies[key] = (until, text)
        self._bytes += _size(key, text)
        self._drop_old()

    def _drop_old(self) -> None:
        now = time.monotonic()
        while self._replies:
            key, (until, text) = next(iter(self._replies.items()))
            if self._bytes <= self._limit_bytes and until > now:
                break
            del self._replies[key]
            self._bytes -= _size(key, text)


def _size(key: str, text: str) -> int:
    return len(key) + len(text) + _ENTRY_BYTES
