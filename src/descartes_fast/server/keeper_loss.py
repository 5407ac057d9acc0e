"""What becomes of the agents when their keeper is gone: they are ended, and that is said."""

from __future__ import annotations

import signal

from .keeper.system import start_ticks
from .keeper.trees import choose_trees, signal_all, signal_group
from .registry import Registry

__all__ = ["end_agents_without_keeper"]

_PASSES = 5  # what is forked while its family is being killed is found by the next one


def end_agents_without_keeper(registry: Registry, instance: str, reason: str) -> None:
    """Kill all that belongs to agents of the keeper ``instance`` and count them as lost.

    Their output cannot be read any more and their exit codes went with the keeper, so an
    agent that ran on would be one that nobody can see.
    """
    agents = registry.alive()
    leaders = {
        agent.pid: str(agent.id)
        for agent in agents
        if agent.pid is not None and start_ticks(agent.pid) == agent.start_ticks
    }
    trees = choose_trees(instance)
    for _ in range(_PASSES):
        members = trees.members(leaders)
        for leader in leaders:
            signal_group(leader, signal.SIGKILL)
        for pids in members.values():
            signal_all(trees, pids, signal.SIGKILL)
        if not members:
            break
        # An id that is free again may be given to another process at any time.
        leaders = {}
    for agent in agents:
        agent.lost(reason)
