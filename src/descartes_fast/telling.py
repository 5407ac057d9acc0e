"""Whether a listener can rely on its feeds, or has to ask for what they may not tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from .errors import DescartesError
from .feed import Feed

__all__ = ["Telling"]

# A feed that works answers within milliseconds: nobody waits longer for one that may not.
_PATIENCE_SECS = 1.0


class Telling:
    """Finds out in the background whether ``feeds`` tell everything from now on.

    ``on_reliable`` is called when they do; what happened until then is to be asked for.
    """

    def __init__(self, feeds: Sequence[Feed], on_reliable: Callable[[], None]) -> None:
        self.reliable = False
        self._feeds = feeds
        self._on_reliable = on_reliable
        self._asking: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Find out, from the beginning if that is going on already."""
        self.stop()
        self._asking = asyncio.create_task(self._ask(), name="descartes-telling")

    async def settle(self) -> None:
        """Wait a little for the answer; it may well come later, or never."""
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=_PATIENCE_SECS)

    def stop(self) -> None:
        """The feeds are not to be relied on until the next ``ask``."""
        self.reliable = False
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    async def _ask(self) -> None:
        try:
            for feed in self._feeds:
                await feed.synced()
        except DescartesError:
            return  # whoever relies on it goes on asking; the feed tells when it is back
        self.reliable = True
        self._on_reliable()
