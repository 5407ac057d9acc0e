"""What the keeper says, to the agents; what happens to agents, to the feeds and the registry."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from uuid import UUID

from .._core import StatusUpdate
from ..errors import AgentError
from .agent import Agent
from .keeper_link import Ended, KeeperLink, OutputGrew
from .log_feed import LogFeed
from .registry import Registry
from .status_feed import StatusFeed
from .tasks import Tasks

__all__ = ["AgentNews", "KeeperNews"]


class AgentNews:
    """The :class:`~.agent.AgentObserver` of a server: the order of what is published is here."""

    def __init__(self, registry: Registry, status_feed: StatusFeed, log_feed: LogFeed) -> None:
        self._registry = registry
        self._status_feed = status_feed
        self._log_feed = log_feed

    def state_changed(self, agent: Agent, update: StatusUpdate) -> None:
        self._status_feed.publish(update)

    def output_grew(self, agent: Agent) -> None:
        self._log_feed.output_grew(agent)
        self._status_feed.output_grew(agent)

    def ended(self, agent: Agent, update: StatusUpdate) -> None:
        """Publish the end after the last byte of output."""
        self._registry.ended(agent)
        self._status_feed.forget(agent)
        self._log_feed.finish(agent, lambda: self._publish_end(agent, update))

    def _publish_end(self, agent: Agent, update: StatusUpdate) -> None:
        self._status_feed.publish(update)
        self._registry.retire(agent)


class KeeperNews:
    """The :class:`~.keeper_link.KeeperEvents` of a server.

    ``keeper`` is set once there is one; it is told to forget each agent whose end is known here.
    ``on_lost`` is called with the reason when the keeper is gone.
    """

    def __init__(
        self, registry: Registry, background: Tasks, on_lost: Callable[[str], None]
    ) -> None:
        self.keeper: KeeperLink | None = None
        self._registry = registry
        self._background = background
        self._on_lost = on_lost

    def output_grew(self, event: OutputGrew) -> None:
        agent = self._registry.find(event.agent_id)
        if agent is not None:
            agent.output_grew(event)

    def agent_ended(self, event: Ended) -> None:
        agent = self._registry.find(event.agent_id)
        if agent is not None:
            agent.ended(event)
        if self.keeper is not None:
            self._background.start(_forget(self.keeper, event.agent_id))

    def keeper_lost(self, reason: str) -> None:
        self._on_lost(reason)


async def _forget(keeper: KeeperLink, agent_id: UUID) -> None:
    with contextlib.suppress(AgentError):  # an abandoned launch is forgotten already
        await keeper.forget(agent_id)
