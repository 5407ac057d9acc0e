"""The agents of a server by id: how many may live, which are listed, how long the ended stay."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from operator import attrgetter
from uuid import UUID

from .._core import AgentStatus
from ..errors import NotFound, ServerBusy
from .agent import Agent

__all__ = ["Registry", "not_found"]


class Registry:
    """Agents in the order of their spawns.

    Of those that ended the last ``retain_agents`` stay, for ``retain_secs``, as long as their
    output takes ``retain_bytes`` at most; the last one stays whatever it takes. ``on_dropped``
    is told each agent whose retention is over; its output may be removed then. Which request
    an agent was started for is known for ``spawns_known_secs``.
    """

    def __init__(
        self,
        *,
        max_agents: int,
        retain_agents: int,
        retain_secs: float,
        retain_bytes: int,
        on_dropped: Callable[[Agent], None],
        spawns_known_secs: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_agents = max_agents
        self._retain_agents = retain_agents
        self._retain_secs = retain_secs
        self._retain_bytes = retain_bytes
        self._on_dropped = on_dropped
        self._spawns_known_secs = spawns_known_secs
        self._clock = clock
        # By the numbers of their ids: hashing and comparing UUIDs are calls into Python.
        self._agents: dict[int, Agent] = {}
        self._by_request: dict[str, tuple[Agent, float]] = {}
        self._alive: dict[int, Agent] = {}
        self._ending: dict[int, Agent] = {}
        """Those that have ended, but not all of which is published."""
        self._retired: OrderedDict[int, float] = OrderedDict()
        self._retired_bytes = 0
        self._none_alive = asyncio.Event()
        self._none_alive.set()

    def add(self, agent: Agent) -> None:
        """List a new agent. Raises ``ServerBusy`` if as many as allowed live already."""
        if self.alive_count >= self._max_agents:
            raise ServerBusy(f"{self._max_agents} agents are the most this server runs")
        self._list(agent)
        self._alive[agent.id.int] = agent
        self._none_alive.clear()

    def restore(self, agent: Agent) -> None:
        """List an agent of an earlier server, after the older ones, whatever the limit says.

        One that has ended is to be retired too.
        """
        self._list(agent)
        if not agent.has_ended:
            self._alive[agent.id.int] = agent
        self._none_alive.clear()

    def discard(self, agent: Agent) -> None:
        """Forget an agent that never ran."""
        self._unlist(agent)
        self._alive.pop(agent.id.int, None)
        self._ending.pop(agent.id.int, None)
        self._forget_retired(agent)
        self._note_if_none_alive()

    def get(self, agent_id: UUID) -> Agent:
        """Return an agent. Raises ``NotFound``."""
        agent = self._agents.get(agent_id.int)
        if agent is None:
            raise not_found(agent_id)
        return agent

    def find(self, agent_id: UUID) -> Agent | None:
        return self._agents.get(agent_id.int)

    def find_all(self, agent_ids: Iterable[UUID]) -> list[Agent | None]:
        """Return agents in the order of their ids, ``None`` for those that are not listed."""
        return list(map(self._agents.get, map(_number_of, agent_ids)))

    def spawned_by(self, request_key: str) -> Agent | None:
        """Return the agent that this very spawn request started, here or with an earlier server.

        It is known as long as the agent is listed, ``spawns_known_secs`` at most.
        """
        agent, since = self._by_request.get(request_key, (None, 0.0))
        return agent if self._clock() - since <= self._spawns_known_secs else None

    def listed(self, status: AgentStatus | None, limit: int | None) -> list[Agent]:
        """Return the agents in a status, or all; the newest first, at most ``limit``."""
        newest_first: Iterable[Agent] = reversed(self._agents.values())
        if status is not None:
            newest_first = (agent for agent in newest_first if agent.status is status)
        return list(newest_first if limit is None else islice(newest_first, limit))

    def ended(self, agent: Agent) -> None:
        """Count an agent as ended; it takes no room any more."""
        if self._alive.pop(agent.id.int, None) is not None:
            self._ending[agent.id.int] = agent

    def retire(self, agent: Agent, ended_secs_ago: float = 0.0) -> None:
        """Begin the retention of an agent that has ended, all of which is published.

        Agents that ended some time ago are to be given in the order of their ends.
        """
        if agent.id.int in self._agents:
            self._ending.pop(agent.id.int, None)
            self._retired[agent.id.int] = self._clock() - ended_secs_ago
            self._retired_bytes += _output_bytes(agent)
            self._note_if_none_alive()
            self.expire()

    def expire(self) -> None:
        """Drop the ended agents that are too many, too old, or have too much output."""
        oldest_kept = self._clock() - self._retain_secs
        while self._retired:
            number, retired_at = next(iter(self._retired.items()))
            is_room = self._retired_bytes <= self._retain_bytes or len(self._retired) == 1
            if is_room and len(self._retired) <= self._retain_agents and retired_at >= oldest_kept:
                return
            agent = self._agents[number]
            self._unlist(agent)
            self._forget_retired(agent)
            self._on_dropped(agent)

    async def wait_until_none_alive(self) -> None:
        """Return when every agent has ended and its end is published."""
        await self._none_alive.wait()

    @property
    def alive_count(self) -> int:
        """How many agents have not ended yet, those that are starting among them."""
        return len(self._alive)

    def alive(self) -> list[Agent]:
        return list(self._alive.values())

    def counts(self) -> dict[str, int]:
        """Return how many agents are in each status."""
        return dict(Counter(agent.status.value for agent in self._agents.values()))

    def output_bytes(self) -> int:
        """Return how many bytes of output are kept."""
        return self.ended_output_bytes() + sum(map(_output_bytes, self._alive.values()))

    def ended_output_bytes(self) -> int:
        """Return how many of them are of agents that have ended."""
        return self._retired_bytes + sum(map(_output_bytes, self._ending.values()))

    def _list(self, agent: Agent) -> None:
        self._agents[agent.id.int] = agent
        if agent.request_key:
            self._by_request[agent.request_key] = agent, self._clock()

    def _unlist(self, agent: Agent) -> None:
        self._agents.pop(agent.id.int, None)
        agent.outdate_status()
        known, _ = self._by_request.get(agent.request_key, (None, 0.0))
        if known is agent:
            del self._by_request[agent.request_key]

    def _forget_retired(self, agent: Agent) -> None:
        if self._retired.pop(agent.id.int, None) is not None:
            self._retired_bytes -= _output_bytes(agent)

    def _note_if_none_alive(self) -> None:
        if len(self._agents) == len(self._retired):
            self._none_alive.set()


_number_of = attrgetter("int")


def _output_bytes(agent: Agent) -> int:
    return agent.stdout.end - agent.stdout.start + agent.stderr.end - agent.stderr.start


def not_found(agent_id: UUID) -> NotFound:
    """Return what is raised for an agent that is not listed."""
    return NotFound(f"no agent {agent_id} here, or no longer", agent_id=str(agent_id))
