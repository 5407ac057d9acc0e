"""Tells the server that output grew: at once, then at most every 2 ms for each agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from .agent import Agent
from .loop import Loop

__all__ = ["Growth"]

_INTERVAL_SECS = 0.002


class Growth:
    """Collects what has grown. While ``is_congested`` says so, the telling waits."""

    def __init__(
        self,
        loop: Loop,
        tell: Callable[[Mapping[str, Any]], None],
        is_congested: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._tell = tell
        self._is_congested = is_congested
        self._grown: list[Agent] = []
        self._waits = False

    def note(self, agent: Agent) -> None:
        """An agent has more output."""
        if not agent.grew and not agent.abandoned:
            agent.grew = True
            self._grown.append(agent)

    def tell_last(self, agent: Agent) -> None:
        """Tell what was not told yet of an agent of which nothing follows."""
        if agent.grew:
            agent.grew = False
            self._tell(agent.growth())

    def tell(self) -> None:
        """Tell what is due; called once a turn."""
        if not self._grown:
            return
        now = time.monotonic()
        later = []
        congested = self._is_congested()
        for agent in self._grown:
            if not agent.grew:
                continue
            if congested or now - agent.told_growth_at < _INTERVAL_SECS:
                later.append(agent)
                continue
            agent.grew = False
            agent.told_growth_at = now
            self._tell(agent.growth())
        self._grown = later
        if later and not self._waits:
            self._waits = True
            self._loop.call_later(_INTERVAL_SECS, self._go_on)

    def _go_on(self) -> None:
        self._waits = False
