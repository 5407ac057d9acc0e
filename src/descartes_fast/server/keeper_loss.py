"""A keeper that is lost while its server lives: another takes its place and its agents."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ..errors import DescartesError
from .health import Health
from .keeper.system import start_ticks
from .keeper.trees import signal_group
from .keeper_link import KeeperLink
from .keeper_messages import Ended
from .registry import Registry
from .taking_over import kill_marked, read_ends, take_over

__all__ = ["KeeperLoss"]

_log = logging.getLogger(__name__)

_MOST_LOSSES = 5
_WITHIN_SECS = 60.0
_PAUSE_SECS = 0.05


class KeeperLoss:
    """Replaces lost keepers, and ends the agents when there is none to be had.

    A fifth loss within a minute is the last: the agents are ended, and said to have failed.
    ``on_ended`` is told the ends that came meanwhile.
    """

    def __init__(
        self,
        keeper: KeeperLink,
        registry: Registry,
        health: Health,
        on_ended: Callable[[Ended], None],
        *,
        ends_path: Path,
        stop_grace_secs: float,
    ) -> None:
        self._keeper = keeper
        self._registry = registry
        self._health = health
        self._on_ended = on_ended
        self._ends_path = ends_path
        self._stop_grace_secs = stop_grace_secs
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
        while not self._keeper.is_over and not self._is_too_often():
            try:
                await self._keeper.replace()
                ends = await self._take_over()
            except Exception as error:
                _log.error("the keeper could not be replaced: %s", error, exc_info=_cause(error))
                reason = str(error) or type(error).__name__
                await asyncio.sleep(_PAUSE_SECS * len(self._losses))
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
        self._keeper.give_up(f"{reason}; it was lost too often to be replaced again")

    async def _take_over(self) -> list[Ended]:
        ends = await asyncio.to_thread(read_ends, self._ends_path)
        found = await take_over(
            self._keeper, self._registry, ends, stop_grace_secs=self._stop_grace_secs
        )
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
        for agent in agents:
            if agent.pid is not None and start_ticks(agent.pid) == agent.start_ticks:
                signal_group(agent.pid, signal.SIGKILL)
        kill_marked(self._keeper.instance)
        for agent in agents:
            agent.lost(reason)


def _cause(error: Exception) -> Exception | None:
    """Return what is a fault of this program, and worth a traceback."""
    return None if isinstance(error, (DescartesError, OSError)) else error
