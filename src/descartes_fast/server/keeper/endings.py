"""How agents end: each leader's exit, what it leaves behind, its pipes, its one report.

The end of an agent, in this order: its leader exits and stays unreaped, so that the id
of its process group remains its own; whatever it left behind gets SIGTERM, two seconds,
SIGKILL; its pipes are emptied; it is reaped; ``ended`` is reported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping

from .agent import Agent, Phase
from .exits import choose_exits
from .leader import Exit
from .loop import Loop
from .output_pipe import OutputPipe
from .pump import Pump
from .targets import Targets
from .trees import Trees, signal_all

__all__ = ["Endings"]

_REST_GRACE_SECS = 2.0  # for what a leader that has exited left behind
_GIVE_UP_SECS = 5.0  # after SIGKILL: a process that hangs in the kernel holds up no report
_LOOK_SECS = 0.005  # between two looks at the process table while something is ending
_LOOK_SHARE = 5  # ... and at least so many times the processor time of one
_SHORTEST_PAUSE_SECS = 0.001  # a look at a thousand children takes a fifth of that
_BLIND_SECS = 0.1  # until the next look when the machine had nothing left to look with
_SWEEP_SECS = 1.0  # until a look is had for what others have started in an ended agent's name
_REMEMBER_SECS = 0.05  # a thousand agents stopped together cost few looks, not a thousand


class Endings:
    """Brings agents to their end; calls ``ended`` once for each, with what is known of it."""

    def __init__(
        self,
        loop: Loop,
        trees: Trees,
        pump: Pump,
        is_starting: Callable[[int], bool],
        grown: Callable[[Agent], None],
        ended: Callable[[Agent, Exit], None],
    ) -> None:
        self.exits = choose_exits(loop)
        self._loop = loop
        self._trees = trees
        self._pump = pump
        self._is_starting = is_starting
        self._grown = grown
        self._ended = ended
        self._live: dict[str, Agent] = {}
        # Processes of agents whose ids nobody else can have.
        self._leaders: dict[int, str] = {}
        self.targets = Targets()
        """Those of them that have not exited, as far as anybody has noticed."""
        self._ending: set[Agent] = set()
        # Ids of agents that have ended and left no descendant; nobody has looked for more yet.
        self._unswept: set[str] = set()
        self._sweeps = False
        self._reaps_later = False
        self._are_some_hidden = False
        self._look_wanted = False
        self._next_look_at = 0.0
        self._looked_at = 0.0

    @property
    def live(self) -> list[Agent]:
        """The agents that have not ended."""
        return list(self._live.values())

    @property
    def live_count(self) -> int:
        """How many agents have not ended."""
        return len(self._live)

    def expect(self, agents: Iterable[Agent]) -> None:
        """Reap none of the leaders of agents that will be attended to."""
        for agent in agents:
            if not agent.leader.is_adopted and agent.phase is not Phase.ENDED:
                self._leaders[agent.leader.pid] = agent.id

    def attend(self, agent: Agent, *, has_exited: bool = False) -> None:
        """See an agent to its end from wherever it is; :meth:`watch` follows if that is not there.

        ``has_exited`` says so of the leader of one that runs otherwise. Where this or the other
        raises the agent is to be dropped.
        """
        self._live[agent.id] = agent
        for pipe in agent.outputs:
            if pipe in agent.unfinished:
                self._pump.add(pipe, lambda: self._grown(agent), self._finisher(agent, pipe))
        if agent.phase is Phase.RUNNING or not agent.leader.is_adopted:
            self._leaders[agent.leader.pid] = agent.id
        if has_exited:
            self._leader_exited(agent)
            return
        if agent.phase is Phase.RUNNING and not agent.leader.is_adopted:
            self.targets.add(agent.id, agent.leader.pid)
        if agent.kill_at is not None:
            self._kill_later(agent)
        if agent.give_up_at is not None:
            self._give_up_later(agent)
        if agent.phase is Phase.CLEARING:
            self._clear(agent)
        elif agent.phase is Phase.DRAINING:
            self._drain(agent)

    def watch(self, agent: Agent) -> None:
        """Notice an agent's output and its leader's exit when they come. Raises ``OSError``."""
        for pipe in agent.unfinished:
            self._pump.watch(pipe)
        if agent.phase is Phase.RUNNING:
            agent.leader.watch(lambda: self._leader_exited(agent))

    def drop(self, agent: Agent) -> None:
        """Let go of an agent that cannot be attended to; a child is killed and reaped."""
        self.targets.discard(agent.id)
        if not agent.leader.is_adopted:
            agent.leader.send_group(signal.SIGKILL)
            agent.leader.close()
            self._reap_later(agent.leader.pid)
        self._leaders.pop(agent.leader.pid, None)
        self._live.pop(agent.id, None)
        self._ending.discard(agent)
        self.close(agent)
        self._reap_strays_soon()  # it may have ended before, and its signal came long ago

    def close(self, agent: Agent) -> None:
        """Close an agent's descriptors."""
        agent.leader.close()
        if agent.stdin is not None:
            agent.stdin.close()
        for pipe in agent.outputs:
            self._pump.remove(pipe)

    def stop(self, agent: Agent, grace_secs: float) -> None:
        """Ask an agent's group to end, and kill all of it after the grace."""
        if agent.phase is Phase.RUNNING:
            self._remember_strays()
            agent.leader.send_group(signal.SIGTERM, signal.SIGCONT)
        self.end_within(agent, grace_secs)

    def end_within(self, agent: Agent, delay_secs: float) -> None:
        """Somebody wants an agent ended: after the delay a full disk holds it up no longer."""
        self._kill_within(agent, delay_secs)
        due = time.monotonic() + delay_secs
        if agent.give_up_at is None or due < agent.give_up_at:
            agent.give_up_at = due
            self._give_up_later(agent)

    def child_signalled(self) -> None:
        """SIGCHLD came: an agent has exited, or something that it left behind."""
        self.exits.child_signalled()
        self._reap_strays_soon()

    def launch_failed(self) -> None:
        """A child that was never an agent's was reaped."""
        self._reap_hidden()

    def after_turn(self) -> None:
        """Look for what is left of agents, once for all events of a turn."""
        if self._look_wanted and time.monotonic() >= self._next_look_at:
            try:
                self._look()
            except OSError:
                self._look_again_after(_BLIND_SECS)

    def is_agents(self, pid: int) -> bool:
        """Whether a process belongs to an agent by its session or its marker.

        Raises ``OSError``.
        """
        return self._trees.owner(pid, self._sessions()) is not None

    def _leader_exited(self, agent: Agent) -> None:
        agent.ended_at_ns = time.time_ns()
        self.targets.discard(agent.id)
        if agent.stdin is not None:
            agent.stdin.close()
        if agent.leader.is_adopted:
            # Reaped by somebody else: another process may have its id from now on.
            self._leaders.pop(agent.leader.pid, None)
        kill_at = time.monotonic() + _REST_GRACE_SECS  # no timer: until then there are looks
        agent.kill_at = kill_at if agent.kill_at is None else min(agent.kill_at, kill_at)
        agent.phase = Phase.CLEARING
        self._clear(agent)

    def _clear(self, agent: Agent) -> None:
        self._ending.add(agent)
        self._look_wanted = True

    def _kill_within(self, agent: Agent, delay_secs: float) -> None:
        """Kill all of an agent after a delay; of two delays the earlier end counts."""
        due = time.monotonic() + delay_secs
        if agent.kill_at is None or due < agent.kill_at:
            agent.kill_at = due
            self._kill_later(agent)

    def _kill_later(self, agent: Agent) -> None:
        def kill() -> None:
            is_live = self._live.get(agent.id) is agent  # it may have been dropped
            if is_live and agent.phase in (Phase.RUNNING, Phase.CLEARING):
                self._ending.add(agent)
                self._look_wanted = True
                self._next_look_at = 0.0

        assert agent.kill_at is not None
        self._loop.call_at(agent.kill_at, kill)

    def _give_up_later(self, agent: Agent) -> None:
        def give_up() -> None:
            for pipe in agent.outputs:
                self._pump.give_up(pipe)

        assert agent.give_up_at is not None
        self._loop.call_at(agent.give_up_at, give_up)

    def _remember_strays(self) -> None:
        """See who is whose child before parents end."""
        if time.monotonic() - self._looked_at > _REMEMBER_SECS:
            self._looked_at = time.monotonic()
            with contextlib.suppress(OSError):
                self._trees.members(self._sessions())

    def _sessions(self) -> dict[int, str]:
        """Return whose the sessions are; those of leaders reaped elsewhere while they are."""
        reaped = {
            agent.leader.pid: agent.id
            for agent in self._ending
            if agent.leader.is_adopted and agent.leader.owns_session()
        }
        return {**reaped, **self._leaders}

    def _look(self) -> None:
        """Look once for all agents that are ending: who is there, if there may be anybody."""
        began = time.thread_time()
        if self._left_nobody():
            pause_secs = (time.thread_time() - began) * _LOOK_SHARE
            self._sweep_later(agent.id for agent in self._ending)
            for agent in list(self._ending):
                self._drain(agent)
            self._look_wanted = False
            if pause_secs >= _SHORTEST_PAUSE_SECS:
                self._look_again_after(pause_secs)
            return
        now = self._looked_at = time.monotonic()
        members = self._trees.members(self._sessions())
        for agent in list(self._ending):
            self._end_rest(agent, members.get(agent.id, []), now)
        self._sweep(members)
        self._look_wanted = bool(self._ending)
        self._look_again_after(max(_LOOK_SECS, (time.thread_time() - began) * _LOOK_SHARE))

    def _look_again_after(self, pause_secs: float) -> None:
        self._next_look_at = time.monotonic() + pause_secs
        # Also with nothing left: an exit before then asks for a look that has to wait.
        self._loop.call_at(self._next_look_at, lambda: None)

    def _left_nobody(self) -> bool:
        """Whether all that are ending have exited and no process descends from them."""
        return (
            all(
                agent.phase is Phase.CLEARING and not agent.leader.is_adopted
                for agent in self._ending
            )
            and self._reap_strays()
        )

    def _sweep_later(self, agent_ids: Iterable[str]) -> None:
        """Look once for the marks of ended agents: not only their descendants can have them."""
        self._unswept.update(agent_ids)
        if not self._sweeps:
            self._sweeps = True
            self._loop.call_later(_SWEEP_SECS, self._look_and_sweep)

    def _look_and_sweep(self) -> None:
        self._sweeps = False
        if self._unswept:
            try:
                self._sweep(self._trees.members(self._sessions()))
            except OSError:
                self._sweep_later(())

    def _sweep(self, members: Mapping[str, list[int]]) -> None:
        for agent_id in self._unswept.intersection(members):
            if agent_id not in self._live:
                signal_all(self._trees, members[agent_id], signal.SIGKILL)
        self._unswept.clear()

    def _end_rest(self, agent: Agent, rest: list[int], now: float) -> None:
        kill_at = agent.kill_at if agent.kill_at is not None else now
        if agent.phase is Phase.CLEARING and (not rest or now >= kill_at + _GIVE_UP_SECS):
            if rest:
                print(f"agent {agent.id}: left behind {rest}", file=sys.stderr, flush=True)
            self._drain(agent)
        elif now >= kill_at:
            agent.leader.send_group(signal.SIGKILL)
            signal_all(self._trees, rest, signal.SIGKILL)
        elif agent.phase is Phase.CLEARING and not agent.was_asked:
            agent.was_asked = True
            agent.leader.send_group(signal.SIGTERM, signal.SIGCONT)
            signal_all(self._trees, rest, signal.SIGTERM, signal.SIGCONT)

    def _drain(self, agent: Agent) -> None:
        agent.phase = Phase.DRAINING
        self._ending.discard(agent)
        for pipe in agent.outputs:
            if pipe in agent.unfinished:
                self._pump.finish(pipe)

    def _finisher(self, agent: Agent, pipe: OutputPipe) -> Callable[[], None]:
        def finished() -> None:
            agent.unfinished.discard(pipe)
            if not agent.unfinished:
                self._reap(agent)

        return finished

    def _reap(self, agent: Agent) -> None:
        how = agent.leader.collect()
        agent.leader.close()
        if not agent.leader.is_adopted:
            del self._leaders[agent.leader.pid]
        del self._live[agent.id]
        agent.phase = Phase.ENDED
        self._ended(agent, how)
        self._pump.make_room()
        self._reap_hidden()

    def _reap_later(self, pid: int) -> None:
        """Reap a killed child that is nobody's: SIGCHLD says when, where that says who it was."""
        if not hasattr(os, "waitid") and os.waitpid(pid, os.WNOHANG)[0] == 0:
            self._loop.call_later(_LOOK_SECS, lambda: self._reap_later(pid))

    def _reap_strays_soon(self) -> None:
        try:
            self._reap_strays()
        except OSError:
            if not self._reaps_later:
                self._reaps_later = True
                self._loop.call_later(_BLIND_SECS, self._reap_strays_again)

    def _reap_strays_again(self) -> None:
        self._reaps_later = False
        self._reap_strays_soon()

    def _reap_strays(self) -> bool:
        """Reap what agents left behind and has ended since, never a leader, nor who becomes one.

        Tells whether it is known that nothing is left now. Raises ``OSError``.
        """
        strays = self._trees.strays(self._leaders, self._is_starting)
        if strays is None:
            self._are_some_hidden = True
            self._reap_hidden()
            return False
        left = [pid for pid in strays if not _is_reaped(pid)]
        return not left

    def _reap_hidden(self) -> None:
        """Reap strays where nobody says who they are, one after another as they have ended.

        A leader hides those behind it until it is reaped, which comes back here.
        """
        while self._are_some_hidden and hasattr(os, "waitid"):
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                found = None
            if found is None:
                self._are_some_hidden = False
            elif found.si_pid in self._leaders or self._is_starting(found.si_pid):
                return
            else:
                _is_reaped(found.si_pid)


def _is_reaped(pid: int) -> bool:
    """Reap a child if it has ended; tell whether it is gone."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
