"""Agents that run and are not in the journal of their state directory: their end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

from .keeper_link import KeeperLink
from .keeper_messages import Ended, OutputGrew
from .keeper_process import LOCK_NAME
from .lock_holders import lock_holder
from .state_dir import StateDir
from .state_view import journal_instance

__all__ = ["end_strangers"]


async def end_strangers(path: Path, grace_secs: float) -> list[UUID]:
    """End the keeper of a state directory and its agents, if it is not the journal's.

    Returns the agents; none if there is no such keeper. Raises ``UsageError`` while a server works
    with the directory, and ``CommunicationError`` if the keeper does not answer.
    """
    state_dir = await asyncio.to_thread(StateDir, path)
    try:
        if lock_holder(state_dir.runtime / LOCK_NAME) is None:
            return []
        keeper = await KeeperLink.open(state_dir.runtime, _Deaf(), instance=None, keep=True)
        try:
            noted = await asyncio.to_thread(journal_instance, path)
            if noted is not None and keeper.instance == state_dir.instance(noted):
                return []
            known = await keeper.known_agents()
            await keeper.aclose(grace_secs=grace_secs)
            return [agent.agent_id for agent in known if agent.ended is None]
        finally:
            keeper.detach()
    finally:
        state_dir.close()


class _Deaf:
    """Does not want to hear from the keeper: it is being ended."""

    def output_grew(self, event: OutputGrew) -> None:
        pass

    def agent_ended(self, event: Ended) -> None:
        pass

    def keeper_lost(self, reason: str) -> None:
        pass
