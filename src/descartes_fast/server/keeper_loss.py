"""What becomes of the agents when their keeper is gone: they are ended, and that is said."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from .agent import Agent
from .registry import Registry

__all__ = ["end_agents_without_keeper"]


def end_agents_without_keeper(registry: Registry, reason: str) -> None:
    """Kill the process groups of all agents and count the agents as lost.

    Their output cannot be read any more and their exit codes went with the keeper, so an
    agent that ran on would be one that nobody can see.
    """
    for agent in registry.alive():
        _kill_group(agent)
        agent.lost(reason)


def _kill_group(agent: Agent) -> None:
    """Send SIGKILL to the agent's group, if its leader is still the process that was started."""
    if agent.pid is None or _start_ticks(agent.pid) != agent.start_ticks:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(agent.pid, signal.SIGKILL)


def _start_ticks(pid: int) -> int | None:
    """Return when a process started (proc(5), field 22), which no later one of its pid shares."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[19])
