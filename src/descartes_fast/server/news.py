"""What the keeper says, to the agents; what happens to agents, to journal, feeds and registry."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from .agent import Agent
from .agent_records import record_of
from .journal import NoJournal
from .keeper_link import KeeperLink
from .keeper_messages import Ended, OutputGrew
from .log_feed import LogFeed
from .registry import Registry
from .status_feed import StatusFeed
from .tasks import Tasks

__all__ = ["AgentNews", "KeeperNews"]


class AgentNews:
    """The :class:`~.agent.AgentObserver` of a server: the order of what is published is here."""

    def __init__(
        self, registry: Registry, journal: NoJournal, status_feed: StatusFeed, log_feed: LogFeed
    ) -> None:
        self._registry = registry
        self._journal = journal
        self._status_feed = status_feed
        self._log_feed = log_feed

    def state_changed(self, agent: Agent) -> None:
        self._save(agent)
        self._status_feed.state_changed(agent)

    def was_noted(self, agent: Agent) -> None:
        self._save(agent)

    def output_grew(self, agent: Agent) -> None:
        self._log_feed.output_grew(agent)
        self._status_feed.output_grew(agent)

    def ended(self, agent: Agent) -> None:
        """Publish the end after the last byte of output."""
        self._save(agent)
        self._registry.ended(agent)
        self._status_feed.forget(agent)
        self._log_feed.finish(agent, lambda: self._publish_end(agent))

    def _publish_end(self, agent: Agent) -> None:
        self._status_feed.state_changed(agent)
        self._registry.retire(agent)

    def _save(self, agent: Agent) -> None:
        if self._journal.keeps:
            self._journal.save_agent(record_of(agent))


class KeeperNews:
    """The :class:`~.keeper_link.KeeperEvents` of a server.

    What comes before :meth:`begin` waits for it: until then the agents are not known here.
    ``on_lost`` is called with the reason when the keeper is gone. The keeper is told to forget
    each agent whose end is in the journal.
    """

    def __init__(
        self,
        registry: Registry,
        journal: NoJournal,
        background: Tasks,
        on_lost: Callable[[str], None],
    ) -> None:
        self._keeper: KeeperLink | None = None
        self._registry = registry
        self._journal = journal
        self._background = background
        self._on_lost = on_lost
        self._early: list[OutputGrew | Ended] = []
        self._ended: list[UUID] = []
        self._is_forgetting = False

    def begin(self, keeper: KeeperLink) -> None:
        """Take what has come and what comes: the agents that ``keeper`` has are known now."""
        self._keeper = keeper
        early, self._early = self._early, []
        for event in early:
            if isinstance(event, Ended):
                self.agent_ended(event)
            else:
                self.output_grew(event)

    def output_grew(self, event: OutputGrew) -> None:
        if self._keeper is None:
            self._early.append(event)
            return
        agent = self._registry.find(event.agent_id)
        if agent is not None:
            agent.output_grew(event)

    def agent_ended(self, event: Ended) -> None:
        if self._keeper is None:
            self._early.append(event)
            return
        agent = self._registry.find(event.agent_id)
        if agent is not None:
            agent.ended(event)
        self._ended.append(event.agent_id)
        if not self._is_forgetting:
            self._is_forgetting = True
            self._background.start(self._forget_ended(self._keeper))

    def keeper_lost(self, reason: str) -> None:
        self._on_lost(reason)

    async def _forget_ended(self, keeper: KeeperLink) -> None:
        """Let the keeper forget what has ended once that is stored, however long it takes."""
        try:
            while self._ended:
                agent_ids, self._ended = self._ended, []
                await self._journal.stored()
                keeper.forget_ended(agent_ids)
        finally:
            self._is_forgetting = False
