"""Agents that lived before the keeper, or this server, did: brought together with what lives."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Collection, Mapping
from pathlib import Path
from uuid import UUID

from .._core import AgentStatus
from ..errors import AgentError, CommunicationError
from .agent import Agent
from .keeper.trees import choose_trees, signal_all
from .keeper_link import KeeperLink
from .keeper_messages import Adoption, Ended, KnownAgent, Started, ended_of
from .registry import Registry

__all__ = ["kill_marked", "read_ends", "take_over"]

_log = logging.getLogger(__name__)

_AT_ONCE = 50  # adoptions: descriptors on their way are limited as open ones are
_PASSES = 5  # what is forked while its family is being killed is found by the next one


async def take_over(
    keeper: KeeperLink,
    registry: Registry,
    ends: Mapping[UUID, Ended],
    *,
    stop_grace_secs: float,
    machine_was_restarted: bool = False,
) -> list[Ended]:
    """Bring the agents that have not ended together with the keeper; return the ends it tells.

    What the keeper has is measured. What it does not have ended as ``ends`` say, or is adopted;
    an agent of which there is neither never ran, and is left as it is. What only the keeper knows
    is ended by it. Stops that were under way go on, from the beginning of their grace. If
    ``machine_was_restarted`` nothing of it can be there, whatever has the process ids now.

    Raises ``CommunicationError`` if the keeper is lost meanwhile.
    """
    known = {agent.agent_id: agent for agent in await keeper.known_agents()}
    agents = registry.alive()
    found = [end for agent in agents if (end := _matched(agent, known, ends)) is not None]
    ended = {end.agent_id for end in found}
    await _drop_the_others(keeper, known, registry)
    orphans = [
        agent for agent in agents if _has_run(agent) and agent.id not in known.keys() | ended
    ]
    if machine_was_restarted:
        for agent in orphans:
            agent.lost("the machine was restarted while it ran: nobody saw how it ended")
        orphans = []
    if keeper.is_new:
        keep = {str(agent.id) for agent in orphans}
        await asyncio.to_thread(kill_marked, keeper.instance, keep)
    await keeper.hold_ends(
        agent.id for agent in agents if agent.id in known and agent.id not in ended
    )
    for agent_id in ended:
        keeper.let_go(agent_id)
    for first in range(0, len(orphans), _AT_ONCE):
        some = orphans[first : first + _AT_ONCE]
        await asyncio.gather(*(_adopt(keeper, agent, stop_grace_secs) for agent in some))
    for agent in registry.alive():
        await _release_again(keeper, agent)
    return found


def read_ends(path: Path) -> dict[UUID, Ended]:
    """Return the ends that a keeper wrote down when it ended with nobody there to tell."""
    try:
        document = json.loads(path.read_bytes())
        found = [ended_of(entry) for entry in document["ends"]]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        _log.error("the ends in %s cannot be read: %s", path, error)
        return {}
    return {end.agent_id: end for end in found}


def kill_marked(instance: str, keep: Collection[str] = ()) -> None:
    """Kill every process of this instance's agents but those of the ids in ``keep``."""
    trees = choose_trees(instance)
    for _ in range(_PASSES):
        left = {key: pids for key, pids in trees.members({}).items() if key not in keep}
        if not left:
            return
        _log.warning("processes of agents that are not known are killed: %s", left)
        for pids in left.values():
            signal_all(trees, pids, signal.SIGKILL)


def _matched(
    agent: Agent, known: Mapping[UUID, KnownAgent], ends: Mapping[UUID, Ended]
) -> Ended | None:
    """Measure an agent by what is known of it; return its end, if that has come."""
    entry = known.get(agent.id)
    end = ends.get(agent.id) if entry is None else entry.ended
    if agent.status is AgentStatus.INITIALIZING:
        if entry is not None:
            agent.started(entry.started)
        elif end is not None:
            agent.started(Started(pid=0, started_at_ns=agent.started_at_ns, start_ticks=0))
            agent.pid = None
    if entry is not None:
        agent.measure(entry.output)
    return end


async def _drop_the_others(
    keeper: KeeperLink, known: Mapping[UUID, KnownAgent], registry: Registry
) -> None:
    """Let go of ends that are stored, and end what nobody asked for: spawns that were given up."""
    for agent_id in known:
        agent = registry.find(agent_id)
        if agent is None:
            _log.warning("agent %s is not known here any more and is ended", agent_id)
        if agent is None or agent.has_ended:
            await keeper.drop_known(agent_id, wanted=agent is not None)


async def _adopt(keeper: KeeperLink, agent: Agent, stop_grace_secs: float) -> None:
    assert agent.pid is not None
    adoption = Adoption(
        agent_id=agent.id,
        pid=agent.pid,
        start_ticks=agent.start_ticks,
        started_at_ns=agent.started_at_ns,
        stdout_path=str(agent.stdout.path),
        stderr_path=str(agent.stderr.path),
        output_limit_bytes=agent.output_limit_bytes,
        output_policy=agent.output_policy,
    )
    try:
        agent.measure(await keeper.adopt(adoption))
        if agent.stop_asked:
            default = agent.stop_grace_secs
            await keeper.stop_again(agent.id, stop_grace_secs if default is None else default)
    except CommunicationError:
        raise
    except AgentError as error:
        _log.error("agent %s was not taken over: %s", agent.id, error)
        if not agent.has_ended:
            keeper.let_go(agent.id)
            agent.lost(f"it could not be taken over by a new keeper: {error}")


async def _release_again(keeper: KeeperLink, agent: Agent) -> None:
    """Say what was read: an agent that waits for that may not have been let go on."""
    if agent.output_policy == "wait":
        for stream, cursor in agent.cursors.items():
            if cursor:
                await keeper.release(agent.id, stream.value, cursor)


def _has_run(agent: Agent) -> bool:
    return agent.pid is not None and agent.status is not AgentStatus.INITIALIZING
