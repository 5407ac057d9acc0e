"""Agents that lived before the keeper, or this server, did: brought together with what lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from .._core import AgentStatus, PauseMode
from ..errors import AgentError, CommunicationError, InvalidState, NotFound, ServerBusy
from .agent import Agent
from .keeper.proc import start_ticks
from .keeper.trees import choose_trees, signal_all, signal_group
from .keeper_link import KeeperLink
from .keeper_messages import Adoption, Ended, KnownAgent, Started
from .registry import Registry

__all__ = ["kill_agents", "kill_marked", "take_over"]

_log = logging.getLogger(__name__)

_AT_ONCE = 50  # adoptions: descriptors on their way are limited as open ones are
_ADOPT_SECS = 5.0  # for a keeper that has no descriptor free: agents end, and give some back
_AGAIN_SECS = 0.1
_DYING_SECS = 0.005
_PASSES = 5  # what is forked while its family is being killed is found by the next one


async def take_over(
    keeper: KeeperLink,
    registry: Registry,
    ends: Mapping[UUID, Ended],
    *,
    gone: str | None = None,
) -> list[Ended]:
    """Bring the agents that have not ended together with the keeper; return the ends it tells.

    What the keeper has is measured. What it does not have ended as ``ends`` say, or is adopted.
    Of one that was being started the directory of its output tells whether it came that far: it may
    have run then, and is lost; else it never ran, and is left as it is. What only the keeper knows
    is ended by it, and what nobody knows is killed. Stops that were under way go on, for what is
    left of their grace. ``gone`` says why none of what the keeper does not have can be there,
    whatever has the process ids now.

    Raises ``CommunicationError`` if the keeper is lost meanwhile.
    """
    known = {agent.agent_id: agent for agent in await keeper.known_agents()}
    agents = registry.alive()
    found = [end for agent in agents if (end := _matched(agent, known, ends)) is not None]
    ended = {end.agent_id for end in found}
    await _drop_the_others(keeper, known, registry)
    missing = [agent for agent in agents if agent.id not in known.keys() | ended]
    orphans = [agent for agent in missing if agent.status is not AgentStatus.INITIALIZING]
    if gone is not None:
        for agent in orphans:
            agent.lost(gone)
        orphans = []
    keep = known.keys() | {agent.id for agent in orphans}
    await asyncio.to_thread(kill_marked, keeper.instance, lambda agent_id: agent_id not in keep)
    for agent in missing:
        is_wanted = registry.find(agent.id) is agent
        is_starting = is_wanted and agent.status is AgentStatus.INITIALIZING
        if is_starting and _was_begun(agent):
            agent.lost("")
    held = [agent for agent in agents if agent.id in known and agent.id not in ended]
    await keeper.hold_ends(agent.id for agent in held)
    for agent_id in ended:
        keeper.let_go(agent_id)
    give_up_at = time.monotonic() + _ADOPT_SECS
    for first in range(0, len(orphans), _AT_ONCE):
        some = orphans[first : first + _AT_ONCE]
        await asyncio.gather(*(_adopt(keeper, agent, give_up_at) for agent in some))
    for agent in agents:
        if not agent.has_ended and agent.id not in ended:
            await _go_on(keeper, agent, known.get(agent.id))
    return found


def _was_begun(agent: Agent) -> bool:
    """Tell whether a keeper came to the start of an agent: it makes the directory before that."""
    return os.path.isdir(os.path.dirname(agent.stdout.path))


def kill_agents(instance: str, agents: Iterable[Agent]) -> None:
    """Kill all that belongs to these agents and can be found."""
    ids = {agent.id for agent in agents}
    for agent in agents:
        if agent.pid and start_ticks(agent.pid) == agent.start_ticks:
            signal_group(agent.pid, signal.SIGKILL)
    kill_marked(instance, lambda agent_id: agent_id in ids)


def kill_marked(instance: str, is_doomed: Callable[[UUID], bool]) -> None:
    """Kill every process with the mark of an agent of this instance whose id ``is_doomed``.

    Blocks for some milliseconds if there are any.
    """
    trees = choose_trees(instance)
    for _ in range(_PASSES):
        found = trees.members({}).items()
        doomed = {key: pids for key, pids in found if _is_doomed(key, is_doomed)}
        if not doomed:
            return
        _log.warning("what is left of agents is killed: %s", doomed)
        for pids in doomed.values():
            signal_all(trees, pids, signal.SIGKILL)
        time.sleep(_DYING_SECS)


def _is_doomed(key: str, is_doomed: Callable[[UUID], bool]) -> bool:
    try:
        return is_doomed(UUID(key))
    except ValueError:  # a mark that no keeper made
        return False


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


async def _adopt(keeper: KeeperLink, agent: Agent, give_up_at: float) -> None:
    assert agent.pid is not None
    adoption = Adoption(
        agent_id=agent.id,
        pid=agent.pid,
        start_ticks=agent.start_ticks,
        started_at_ns=agent.started_at_ns,
        stdout_path=agent.stdout.path,
        stderr_path=agent.stderr.path,
        output_limit_bytes=agent.output_limit_bytes,
        output_policy=agent.output_policy,
    )
    while True:
        try:
            agent.measure(await keeper.adopt(adoption))
            return
        except CommunicationError:
            raise
        except AgentError as error:
            if not isinstance(error, ServerBusy) or time.monotonic() >= give_up_at:
                reason = error
                break
        await asyncio.sleep(_AGAIN_SECS)
    _log.error("agent %s was not taken over and is killed: %s", agent.id, reason)
    # Nobody would see what it does, nor end it.
    await asyncio.to_thread(kill_agents, keeper.instance, [agent])
    keeper.let_go(agent.id)
    agent.lost(f"it could not be taken over by a new keeper, and was killed: {reason}")


async def _go_on(keeper: KeeperLink, agent: Agent, entry: KnownAgent | None) -> None:
    """Do again what was asked before, as far as this keeper may not know of it."""
    if agent.status is AgentStatus.INITIALIZING:
        return
    with contextlib.suppress(InvalidState, NotFound):  # it has ended
        if agent.stop_by_ns is not None:
            if entry is None or not entry.stopping:
                left_secs = max(agent.stop_by_ns - time.time_ns(), 0) / 1e9
                await keeper.stop_again(agent.id, left_secs)
        elif agent.pause_begun:
            await keeper.pause_again(agent.id)
            agent.require_alive("pause")  # its end may have come with the answer
            agent.paused(PauseMode.FORCED)
    if agent.output_policy == "wait":  # it may not have been let go on
        for stream, cursor in agent.cursors.items():
            if cursor:
                await keeper.release(agent.id, stream.value, cursor)
