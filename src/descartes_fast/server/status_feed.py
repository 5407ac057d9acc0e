"""What happens to agents, as published status updates; also the server's heartbeat."""

from __future__ import annotations

import asyncio

from .._core import StatusUpdate, StatusUpdateType
from .agent import Agent
from .publisher import Publisher
from .refusals import NIL_ID

__all__ = ["StatusFeed"]

_NIL_TEXT = str(NIL_ID)
OUTPUT_INTERVAL_SECS = 0.1
"""``output_available`` is published at most ten times a second for each agent."""


class StatusFeed:
    """Publishes status updates, or nothing at all if they are not enabled."""

    def __init__(self, publisher: Publisher, *, enabled: bool) -> None:
        self._publisher = publisher
        self._enabled = enabled
        self._grown: dict[int, Agent] = {}
        self._told_at: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def state_changed(self, agent: Agent) -> None:
        """Publish an agent's last change of state, if anybody wants it."""
        if self._is_wanted(agent.id_text):
            self._publisher.publish_status(agent.status_update())

    def output_grew(self, agent: Agent) -> None:
        """Publish that there is more output: at once, or when 0.1 s have passed since the last."""
        if not self._enabled or agent.id.int in self._grown:
            return
        now = self._loop.time()
        if now - self._told_at.get(agent.id.int, float("-inf")) >= OUTPUT_INTERVAL_SECS:
            self._tell_output(agent, now)
            return
        self._grown[agent.id.int] = agent
        if self._timer is None:
            self._timer = self._loop.call_later(OUTPUT_INTERVAL_SECS, self._tell_grown)

    def forget(self, agent: Agent) -> None:
        """Publish nothing more about an agent's output; its end will say the lengths."""
        self._grown.pop(agent.id.int, None)
        self._told_at.pop(agent.id.int, None)

    def heartbeat(self, *, active_agents: int, uptime_secs: int) -> None:
        """Publish that the server is alive."""
        if self._is_wanted(_NIL_TEXT):
            self._publisher.publish_status(
                StatusUpdate(
                    agent_id=NIL_ID,
                    update_type=StatusUpdateType.HEARTBEAT,
                    data={"active_agents": active_agents, "uptime_secs": uptime_secs},
                )
            )

    def close(self) -> None:
        """Publish no more of what was held back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_wanted(self, agent_id: str) -> bool:
        """Whether an update is worth building."""
        return self._enabled and self._publisher.wants_status(agent_id)

    def _tell_grown(self) -> None:
        self._timer = None
        now = self._loop.time()
        waiting = list(self._grown.values())
        for agent in waiting:
            if now - self._told_at[agent.id.int] >= OUTPUT_INTERVAL_SECS:
                del self._grown[agent.id.int]
                self._tell_output(agent, now)
        if self._grown:
            next_at = min(self._told_at[key] for key in self._grown) + OUTPUT_INTERVAL_SECS
            self._timer = self._loop.call_at(next_at, self._tell_grown)

    def _tell_output(self, agent: Agent, now: float) -> None:
        self._told_at[agent.id.int] = now
        if self._is_wanted(agent.id_text):
            self._publisher.publish_status(
                StatusUpdate(
                    agent_id=agent.id,
                    update_type=StatusUpdateType.OUTPUT_AVAILABLE,
                    status=agent.status,
                    data={"stdout_bytes": agent.stdout.end, "stderr_bytes": agent.stderr.end},
                )
            )
