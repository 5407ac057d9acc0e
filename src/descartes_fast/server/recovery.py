"""The agents of an earlier server: from the journal, and from the keeper that has them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

from .._core import AgentStatus
from ..errors import ServerBusy
from .agent import Agent
from .agent_records import record_of, restored_agent
from .journal import NoJournal
from .journal_records import AgentRecord
from .keeper_link import KeeperLink
from .keeper_messages import Ended
from .keeper_process import ENDS_NAME
from .left_ends import read_ends
from .log_feed import LogFeed
from .news import AgentNews
from .registry import Registry
from .state_dir import StateDir
from .taking_over import take_over

__all__ = ["Recovery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What it takes to bring the agents of an earlier server back."""

    journal: NoJournal
    keeper: KeeperLink
    registry: Registry
    state_dir: StateDir
    news: AgentNews
    log_feed: LogFeed

    async def run(self) -> list[Ended]:
        """List all agents as they are; return the ends that came meanwhile.

        Those are in the journal then, and for the keeper to forget, unless the disk refuses them.
        Agents that never ran are removed. Blocks on the disk for a moment: nothing is served yet.
        """
        agents = [self._restored(record) for record in self.journal.agents()]
        self._retire(agent for agent in agents if agent.has_ended)
        ends_path = self.state_dir.runtime / ENDS_NAME
        ends = await take_over(
            self.keeper,
            self.registry,
            read_ends(ends_path),
            gone=self.state_dir.why_agents_are_gone(),
        )
        for agent in self.registry.alive():
            if agent.status is AgentStatus.INITIALIZING:
                self.registry.discard(agent)
                self.journal.remove_agent(agent.id)
            else:
                # What was written meanwhile is for those who read; it is not published now.
                self.log_feed.leave_out(agent)
                self.journal.save_agent(record_of(agent))
        for end in ends:
            self.registry.get(end.agent_id).ended(end)
        with contextlib.suppress(ServerBusy):
            await self.journal.committed()
            ends_path.unlink(missing_ok=True)
            self.state_dir.note_boot()
        known = {agent.id for agent in self.registry.listed(None, None)}
        await asyncio.to_thread(self.state_dir.remove_unknown, known)
        return ends

    def _restored(self, record: AgentRecord) -> Agent:
        agent = restored_agent(record, self.state_dir.agent_directory(record.id), self.news)
        self.registry.restore(agent)
        return agent

    def _retire(self, ended: Iterable[Agent]) -> None:
        now_ns = time.time_ns()
        for agent in sorted(ended, key=lambda agent: agent.ended_at_ns or 0):
            self.registry.retire(agent, (now_ns - (agent.ended_at_ns or 0)) / 1e9)
