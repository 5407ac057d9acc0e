"""What the tests of the journal write into it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from descartes_fast.server.journal_records import AgentRecord

__all__ = ["record"]


def record(**fields: Any) -> AgentRecord:
    """Return the record of a new agent that runs."""
    values: dict[str, Any] = {
        "id": uuid4(),
        "metadata": {},
        "name": "a name",
        "model_backend": "sh",
        "task": "a task",
        "pause_policy": "forced",
        "status": "running",
        "seq": 2,
        "started_at_ns": 1,
        "output_limit_bytes": 1000,
        "output_policy": "trim",
    }
    return AgentRecord(**{**values, **fields})
