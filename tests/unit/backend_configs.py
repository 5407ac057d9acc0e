"""What the tests of backends begin with: an agent to start and a server's environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from descartes_fast import AgentConfig, BackendConfig
from descartes_fast.server.backends import Backends, LaunchPlan

AGENT_ID = UUID("6f1f5f6e-9f3c-4a53-8f0e-2f3f7f0f9a10")

SERVERS_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/home/operator",
    "LC_ALL": "C.UTF-8",
    "ANTHROPIC_API_KEY": "the operator's key",
    "OPENAI_API_KEY": "another key",
    "DATABASE_PASSWORD": "nobody's business",
    "LD_PRELOAD": "/opt/shim.so",
}


def plan(
    tables: Mapping[str, BackendConfig] | None = None,
    metadata: Mapping[str, str] | None = None,
    **config: Any,
) -> LaunchPlan:
    """Plan the agent that ``config`` describes: backend ``claude``, task ``do it`` if not given."""
    fields = {"name": "worker", "model_backend": "claude", "task": "do it"} | config
    backends = Backends(tables or {}, SERVERS_ENVIRONMENT)
    return backends.plan(AgentConfig(**fields), AGENT_ID, metadata)


def tool(*command: str | tuple[str, ...], **settings: Any) -> dict[str, BackendConfig]:
    """Return tables with one backend, ``tool``."""
    return {"tool": BackendConfig(command=command, **settings)}


def plan_tool(tables: Mapping[str, BackendConfig], **config: Any) -> LaunchPlan:
    """Plan an agent of the backend ``tool``."""
    return plan(tables, model_backend="tool", **config)
