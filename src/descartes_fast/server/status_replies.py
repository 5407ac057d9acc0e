"""The answers to plain ``get_status`` requests, kept until the agent has changed.

Watching agents is what most requests are for, and most answers are what was said before with
another request id. Everything else, refusals too, is the dispatcher's.
"""

from __future__ import annotations

from uuid import UUID

from .._core import CommandResponse, serialize_zmq_message
from .._core.quick_status import answered, asked_agent
from .agent import Agent
from .registry import Registry
from .statistics import Counters

__all__ = ["StatusReplies"]

_MOST_KEPT = 10_000  # of about 700 bytes; with more agents than that, they take turns


class StatusReplies:
    """The last answer about each agent that was asked about, without its request id."""

    def __init__(self, registry: Registry, counters: Counters) -> None:
        self._registry = registry
        self._counters = counters
        self._known: dict[bytes, _Known] = {}

    def reply_to(self, body: bytes) -> bytes | None:
        """Return the reply to a request; ``None`` if it is not for this place to answer."""
        agent_id = asked_agent(body)
        if agent_id is None:
            return None
        known = self._known.get(agent_id)
        if known is None or self._registry.find(known.agent.id) is not known.agent:
            known = self._learn(agent_id)
            if known is None:
                return None
        self._counters.commands += 1
        return answered(known.reply(), body)

    def _learn(self, agent_id: bytes) -> _Known | None:
        agent = self._registry.find(UUID(bytes=agent_id))
        if agent is None:
            self._known.pop(agent_id, None)
            return None
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        known = self._known[agent_id] = _Known(agent)
        return known


class _Known:
    """What was said of an agent, and the state of which it was said."""

    __slots__ = ("_reply", "_state", "agent")

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._state: tuple[int, int, int] | None = None
        self._reply = b""

    def reply(self) -> bytes:
        agent = self.agent
        state = (agent.seq, agent.stdout.end, agent.stderr.end)
        if state != self._state:
            self._state = state
            self._reply = serialize_zmq_message(
                CommandResponse(
                    request_id="",
                    agent_id=agent.id,
                    success=True,
                    status=agent.status,
                    data=agent.status_data(),
                )
            )
        return self._reply
