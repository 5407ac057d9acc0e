"""The messages of the hand-written peers: the same facts as ours, as a user would declare them."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Agent", "Status", "Update", "agent_dict", "agents"]


@dataclass(slots=True)
class Status:
    """The answer to get_status."""

    request_id: str
    success: bool
    status: str
    data: dict[str, Any]


@dataclass(slots=True)
class Update:
    """A change of status."""

    agent_id: str
    update_type: str
    status: str
    message: str | None
    data: dict[str, Any]
    timestamp: int


@dataclass(slots=True)
class Agent:
    """An entry of a list."""

    id: str
    name: str
    status: str
    model_backend: str
    started_at: int
    task: str


def agents(count: int) -> list[Agent]:
    """Return that many agents."""
    return [
        Agent(str(uuid.uuid4()), f"agent-{number}", "running", "sleep", 10**18 + number, "infinity")
        for number in range(count)
    ]


def agent_dict(agent: Agent) -> dict[str, Any]:
    """Return an agent as msgpack takes it."""
    return asdict(agent)
