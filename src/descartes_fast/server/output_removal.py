"""Removes the output of agents that nobody needs any more: in a thread, many at a time."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, Future
from uuid import UUID

from .state_dir import StateDir

__all__ = ["OutputRemoval"]

_GATHER_SECS = 0.1  # waking a thread costs more than what it does for one agent


class OutputRemoval:
    """Gathers agents for 0.1 s, then removes their output in a thread of ``threads``."""

    def __init__(self, state_dir: StateDir, threads: Executor) -> None:
        self._state_dir = state_dir
        self._threads = threads
        self._agent_ids: list[UUID] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def remove(self, agent_id: UUID) -> None:
        """Remove the output of an agent, soon."""
        self._agent_ids.append(agent_id)
        if self._timer is None:
            self._timer = self._loop.call_later(_GATHER_SECS, self._begin)

    async def aclose(self) -> None:
        """Remove what is left; twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.wrap_future(self._begin())

    def _begin(self) -> Future[None]:
        self._timer = None
        agent_ids, self._agent_ids = self._agent_ids, []
        return self._threads.submit(self._state_dir.remove_agents, agent_ids)
