"""Is the server healthy: accepting spawns, keeper answering, journal written, reserves met."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ..errors import DescartesError
from .journal import NoJournal
from .keeper_link import KeeperLink
from .limits import Reserves

__all__ = ["Health"]

_PING_SECS = 2.0
_FRESH_SECS = 1.0


class Health:
    """Knows the reason why the server is not healthy, if it is not.

    ``accepting`` says whether the server takes spawns.
    """

    def __init__(
        self,
        keeper: KeeperLink,
        reserves: Reserves,
        journal: NoJournal,
        accepting: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keeper = keeper
        self._reserves = reserves
        self._journal = journal
        self._accepting = accepting
        self._clock = clock
        self._asked_at = float("-inf")
        self.lost: str | None = None
        """Why there is no keeper, if that is so."""
        self._keeper_reason: str | None = None
        self._asking: asyncio.Lock = asyncio.Lock()

    @property
    def fresh(self) -> bool:
        """Whether the keeper was asked within the last second."""
        return self._clock() - self._asked_at <= _FRESH_SECS

    def reason(self) -> str | None:
        """Return why the server is not healthy, as far as is known without asking the keeper."""
        if not self._accepting():
            return "the server is shutting down"
        return self._keeper_reason or self._journal.trouble or self._reserves.shortage()

    async def ask(self) -> str | None:
        """Return why the server is not healthy, after asking the keeper."""
        async with self._asking:
            if not self.fresh:
                reason = await self._ping()
                if self.lost is None:
                    self._keeper_reason = reason
                    self._asked_at = self._clock()
        return self.reason()

    def keeper_lost(self, reason: str) -> None:
        """Note that there is no keeper any more, or not for the moment."""
        self.lost = self._keeper_reason = reason
        self._asked_at = float("inf")

    def keeper_is_back(self) -> None:
        """Note that there is a keeper again."""
        self.lost = self._keeper_reason = None
        self._asked_at = float("-inf")

    async def _ping(self) -> str | None:
        try:
            async with asyncio.timeout(_PING_SECS):
                await self._keeper.ping()
        except TimeoutError:
            return f"the keeper has not answered for {_PING_SECS:g} s"
        except (DescartesError, OSError) as error:
            return f"the keeper does not answer: {str(error) or type(error).__name__}"
        return None
