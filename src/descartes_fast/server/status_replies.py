"""The answers to plain ``get_status`` requests, kept until the agent changes.

Watching agents is what most requests are for, and most answers are what was said before with
another request id. Everything else, refusals too, is the dispatcher's.
"""

from __future__ import annotations

from functools import partial
from uuid import UUID

from .._core import CommandResponse, serialize_zmq_message
from .._core.quick_status import QuickReplies, asked_agent
from .agent import Agent
from .registry import Registry
from .statistics import Counters

__all__ = ["StatusReplies"]


class StatusReplies:
    """Answers from ``known``, and tells it what is said of each agent that is asked about.

    An agent that changes takes that back before it tells anybody (:meth:`.agent.Agent.outdate`).
    """

    def __init__(self, registry: Registry, counters: Counters, known: QuickReplies) -> None:
        self._registry = registry
        self._counters = counters
        self._known = known

    def reply_to(self, body: bytes) -> bytes | None:
        """Return the reply to a request; ``None`` if it is not for this place to answer."""
        reply = self._known.reply_to(body)
        if reply is None:
            agent_id = asked_agent(body)
            agent = None if agent_id is None else self._registry.find(UUID(bytes=agent_id))
            if agent is None:
                return None
            self._tell(agent)
            reply = self._known.reply_to(body)
        self._counters.commands += 1
        return reply

    def _tell(self, agent: Agent) -> None:
        key = agent.id.bytes
        response = CommandResponse(
            request_id="",
            agent_id=agent.id,
            success=True,
            status=agent.status,
            data=agent.status_data(),
        )
        self._known.tell(key, serialize_zmq_message(response))
        agent.on_outdated = partial(self._known.take_back, key)
