"""A keeper that is lost while its server lives: another takes its place and its agents."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ..errors import DescartesError
from .health import Health
from .keeper_link import KeeperLink
from .keeper_messages import Ended
from .left_ends import read_ends
from .registry import Registry
from .taking_over import kill_agents, kill_marked, take_over

__all__ = ["KeeperLoss"]

_log = logging.getLogger(__name__)

_MOST_LOSSES = 5
_WITHIN_SECS = 60.0
_START_SECS = 60.0  # for a keeper that cannot be started: what it lacks may come back
_PAUSE_SECS, _LONGEST_PAUSE_SECS = 0.05, 2.0


class KeeperLoss:
    """Replaces lost keepers, and ends the agents when there is none to be had.

    A fifth loss within a minute is the last, and so is one for which no keeper can be started
    within a minute: the agents are ended, and said to have failed. ``on_ended`` is told the ends
    that came meanwhile.
    """

    def __init__(
        self,
        keeper: KeeperLink,
        registry: Registry,
        health: Health,
        on_ended: Callable[[Ended], None],
        *,
        ends_path: Path,
    ) -> None:
        self._keeper = keeper
        self._registry = registry
        self._health = health
        self._on_ended = on_ended
        self._ends_path = ends_path
        self._losses: deque[float] = deque(maxlen=_MOST_LOSSES)
        self._replacing: asyncio.Task[None] | None = None

    def lost(self, reason: str) -> None:
        """The keeper is gone: see to it that there is another, unless this was on purpose."""
        _log.error("the keeper is lost: %s", reason)
        self._health.keeper_lost(reason)
        if self._keeper.is_over:
            self._end_agents(reason)
        elif self._replacing is None or self._replacing.done():
            self._replacing = asyncio.get_running_loop().create_task(self._replace(reason))

    async def aclose(self) -> None:
        """Replace no more."""
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.wait({self._replacing})

    async def _replace(self, reason: str) -> None:
        while not self._keeper.is_over:
            if self._is_too_often():
                self._keeper.give_up(f"{reason}; it was lost too often to be replaced again")
                return
            try:
                await self._start()
                ends = await self._take_over()
            except Exception as error:
                if not self._keeper.is_over:
                    _say("the agents were not taken over", error)
                reason = str(error) or type(error).__name__
                continue
            self._health.keeper_is_back()
            self._keeper.resume()
            for end in ends:
                self._on_ended(end)
            for agent in self._registry.alive():
                agent.tell_output()  # what the lost one has moved and not told
            if self._keeper.lost is None:
                return
            reason = self._keeper.lost  # this one too, in the meantime

    async def _start(self) -> None:
        """Connect to another keeper, however often that must be tried.

        Nothing is lost meanwhile: the agents run, or wait for somebody to read what they write.
        """
        give_up_at = time.monotonic() + _START_SECS
        pause_secs = _PAUSE_SECS
        while True:
            try:
                await self._keeper.replace()
                return
            except Exception as error:
                _say("the keeper could not be replaced", error)
                if time.monotonic() >= give_up_at:
                    self._keeper.give_up(f"no other keeper could be started: {error}")
                    raise
            await asyncio.sleep(pause_secs)
            pause_secs = min(2 * pause_secs, _LONGEST_PAUSE_SECS)

    async def _take_over(self) -> list[Ended]:
        ends = await asyncio.to_thread(read_ends, self._ends_path)
        found = await take_over(self._keeper, self._registry, ends)
        _log.warning(
            "keeper %d has taken %d agents over", self._keeper.pid, self._registry.alive_count
        )
        return found

    def _is_too_often(self) -> bool:
        now = time.monotonic()
        self._losses.append(now)
        return len(self._losses) == _MOST_LOSSES and now - self._losses[0] < _WITHIN_SECS

    def _end_agents(self, reason: str) -> None:
        """Kill all that belongs to the agents and count them as lost.

        Their output cannot be read any more and their exit codes went with the keeper, so an
        agent that ran on would be one that nobody can see.
        """
        agents = self._registry.alive()
        kill_agents(self._keeper.instance, agents)
        kill_marked(self._keeper.instance, lambda _: True)
        for agent in agents:
            agent.lost(reason)


def _say(what: str, error: Exception) -> None:
    """Log an error, with a traceback if it is a fault of this program."""
    expected = isinstance(error, (DescartesError, OSError))
    _log.error("%s: %s", what, error, exc_info=None if expected else error)
