"""All agents of a keeper: from the start of each to the one report of its end.

The end of an agent, in this order: its leader exits and stays unreaped, so that the id
of its process group remains its own; whatever it left behind gets SIGTERM, two seconds,
SIGKILL; its pipes are emptied; it is reaped; ``ended`` is reported.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from .agent import Agent, Phase
from .exits import choose_exits
from .input_pipe import BUFFER_BYTES, InputClosed, InputFull, InputPipe
from .loop import WRITE, Loop
from .output_pipe import Budget, OutputPipe
from .protocol import Refusal
from .pump import Pump
from .start import Started, StartFailed, remove_output, start
from .system import start_ticks
from .trees import Trees, signal_all, signal_group

__all__ = ["Agents"]

_REST_GRACE_SECS = 2.0  # for what a leader that has exited left behind
_GIVE_UP_SECS = 5.0  # after SIGKILL: a process that hangs in the kernel holds up no report
_LOOK_SECS = 0.005  # between two looks at the process table while something is ending
_LOOK_SHARE = 5  # ... and at least so many times the processor time of one
_REMEMBER_SECS = 0.05  # a thousand agents stopped together cost few looks, not a thousand
_GROWTH_SECS = 0.002


class Agents:
    """Starts, feeds, signals and ends agents; reports growth and ends through ``tell``.

    While ``is_congested`` says so, growth waits: the server takes no more for the moment.
    """

    def __init__(
        self,
        loop: Loop,
        trees: Trees,
        tell: Callable[[Mapping[str, Any]], None],
        is_congested: Callable[[], bool],
        *,
        agent_nofile: int | None = None,
    ) -> None:
        self.budget = Budget()
        self.pump = Pump(loop)
        self._loop = loop
        self._trees = trees
        self._tell = tell
        self._is_congested = is_congested
        self._agent_nofile = agent_nofile
        self._exits = choose_exits(loop)
        self._agents: dict[str, Agent] = {}
        self._leaders: dict[int, str] = {}
        self._ending: set[Agent] = set()
        self._look_wanted = False
        self._next_look_at = 0.0
        self._looked_at = 0.0
        self._grown: list[Agent] = []
        self._growth_timer = False
        self._null_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        # Kept for the descriptor that notices a new process's exit: it must not be the one
        # that is missing when the process is there already.
        self._spare_fd = os.dup(self._null_fd)

    @property
    def live(self) -> int:
        """How many agents have not ended."""
        return len(self._leaders)

    @property
    def known(self) -> int:
        """How many agents are known, the ended ones too."""
        return len(self._agents)

    def start(self, request: Mapping[str, Any], stdin_data: bytes) -> dict[str, Any]:
        """Start an agent; return the fields of the reply. Raises ``Refusal``."""
        agent_id = request["agent"]
        if agent_id in self._agents:
            raise Refusal("spawn_failed", "an agent of this id was started already")
        try:
            started = start(request, self._null_fd, self._agent_nofile)
        except StartFailed as error:
            raise Refusal("spawn_failed", str(error)) from None
        agent = Agent(
            agent_id,
            started.pid,
            InputPipe(started.stdin_fd) if started.stdin_fd is not None else None,
            *self._outputs(request, started),
        )
        self._agents[agent_id] = agent
        self._leaders[agent.pid] = agent_id
        try:
            self._attend(agent)
        except OSError as error:
            self._undo_start(agent)
            raise Refusal("spawn_failed", f"the keeper cannot watch it: {error}") from None
        if agent.stdin is not None:
            agent.stdin.queue(stdin_data, close=request["stdin"] == "close-after-task")
            self._feed(agent)
        return {
            "pid": agent.pid,
            "started_at_ns": started.started_at_ns,
            "start_ticks": start_ticks(agent.pid),
        }

    def write(self, agent_id: str, data: bytes, *, close: bool, key: str) -> int:
        """Write to an agent's stdin, all or nothing. Raises ``Refusal``."""
        agent = self._find(agent_id)
        if agent.stdin is None:
            raise Refusal("state", "the agent has no stdin")
        try:
            count = agent.stdin.write(data, close=close, key=key)
        except InputClosed:
            raise Refusal("state", "the agent's stdin is closed") from None
        except InputFull:
            raise Refusal(
                "would_block",
                f"the agent does not read its stdin: {len(data)} bytes more do not fit into "
                f"the {BUFFER_BYTES} bytes kept for it",
            ) from None
        finally:
            self._feed(agent)
        return count

    def signal(self, agent_id: str, signum: int, *, tree: bool) -> None:
        """Signal an agent's leader, or its whole process group. Raises ``Refusal``."""
        agent = self._find(agent_id)
        if agent.phase is not Phase.RUNNING:
            raise Refusal("state", "the agent has ended")
        try:
            # The leader is not reaped, so both ids are still its own.
            if tree:
                os.killpg(agent.pid, signum)
            else:
                os.kill(agent.pid, signum)
        except OSError as error:
            raise Refusal("invalid", f"signal {signum}: {error.strerror}") from None

    def stop(self, agent_id: str, grace_secs: float) -> None:
        """Ask an agent's group to end, and kill all of it after the grace. Raises ``Refusal``."""
        agent = self._find(agent_id)
        if agent.phase is Phase.ENDED:
            raise Refusal("state", "the agent has ended")
        if agent.phase is Phase.RUNNING:
            self._remember_strays()
            signal_group(agent.pid, signal.SIGTERM, signal.SIGCONT)
        self._end_within(agent, grace_secs)

    def kill(self, agent_id: str) -> None:
        """Kill an agent and all that belongs to it. Raises ``Refusal``."""
        agent = self._find(agent_id)
        if agent.phase is Phase.ENDED:
            raise Refusal("state", "the agent has ended")
        self._end_within(agent, 0.0)

    def stop_all(self, grace_secs: float) -> None:
        """Stop, or without a grace kill, every agent that has not ended."""
        for agent_id in list(self._leaders.values()):
            if grace_secs > 0:
                self.stop(agent_id, grace_secs)
            else:
                self.kill(agent_id)

    def abandon(self, agent_id: str) -> None:
        """Kill an agent that nobody waits for, and forget it with its output."""
        agent = self._agents.get(agent_id)
        if agent is None:
            return
        agent.abandoned = True
        if agent.phase is Phase.ENDED:
            self.forget(agent_id, remove=True)
        else:
            self._end_within(agent, 0.0)

    def release(self, agent_id: str, stream: str, offset: int) -> None:
        """What comes before ``offset`` was read. An unknown agent is fine."""
        agent = self._agents.get(agent_id)
        if agent is not None:
            (agent.stderr if stream == "stderr" else agent.stdout).release(offset)
            self.pump.make_room()

    def limit_total(self, limit_bytes: int | None) -> None:
        """Set what all streams together may keep."""
        self.budget.limit_bytes = limit_bytes
        self.pump.make_room()

    def forget(self, agent_id: str, *, remove: bool) -> None:
        """Drop what is known of an agent that has ended. Raises ``Refusal``."""
        agent = self._find(agent_id)
        if agent.phase is not Phase.ENDED:
            raise Refusal("state", "the agent has not ended")
        del self._agents[agent_id]
        if remove:
            for pipe in agent.outputs:
                remove_output(pipe.path)

    def child_signalled(self) -> None:
        """SIGCHLD came: an agent has exited, or something that was adopted."""
        self._exits.child_signalled()
        self._reap_adopted()

    def after_turn(self) -> None:
        """Do what is done once for all events of a turn."""
        if self._look_wanted and time.monotonic() >= self._next_look_at:
            self._look()
        if self._grown:
            self._tell_growth()

    def close(self) -> None:
        """Close every descriptor."""
        for agent in self._agents.values():
            if agent.stdin is not None:
                agent.stdin.close()
            for pipe in agent.outputs:
                self.pump.remove(pipe)
        os.close(self._null_fd)
        os.close(self._spare_fd)

    def _find(self, agent_id: str) -> Agent:
        agent = self._agents.get(agent_id)
        if agent is None:
            raise Refusal("not_found", f"the keeper has no agent {agent_id}")
        return agent

    def _outputs(
        self, request: Mapping[str, Any], started: Started
    ) -> tuple[OutputPipe, OutputPipe]:
        def output(fd: int, file_fd: int, path: str) -> OutputPipe:
            return OutputPipe(
                fd,
                file_fd,
                path,
                limit_bytes=request["output_limit_bytes"],
                policy=request["output_policy"],
                budget=self.budget,
            )

        return (
            output(started.stdout_fd, started.stdout_file_fd, request["stdout_path"]),
            output(started.stderr_fd, started.stderr_file_fd, request["stderr_path"]),
        )

    def _attend(self, agent: Agent) -> None:
        for pipe in agent.outputs:
            self.pump.add(pipe, lambda: self._has_grown(agent), lambda: self._has_finished(agent))
        os.close(self._spare_fd)
        try:
            self._exits.watch(agent.pid, lambda: self._leader_exited(agent))
        finally:
            self._spare_fd = os.dup(self._null_fd)

    def _undo_start(self, agent: Agent) -> None:
        signal_group(agent.pid, signal.SIGKILL)
        os.waitpid(agent.pid, 0)
        self._exits.forget(agent.pid)
        del self._agents[agent.id], self._leaders[agent.pid]
        if agent.stdin is not None:
            agent.stdin.close()
        for pipe in agent.outputs:
            self.pump.remove(pipe)
            remove_output(pipe.path)

    def _feed(self, agent: Agent) -> None:
        """Go on with stdin when its pipe takes more, for as long as there is something left."""
        stdin = agent.stdin
        if stdin is None:
            return

        def feed() -> None:
            fd = stdin.fd
            stdin.flush()
            if not stdin.waits:
                self._loop.unwatch(fd)

        if stdin.waits:
            self._loop.watch(stdin.fd, WRITE, feed)

    def _leader_exited(self, agent: Agent) -> None:
        agent.phase = Phase.CLEARING
        agent.ended_at_ns = time.time_ns()
        if agent.stdin is not None:
            if agent.stdin.waits:
                self._loop.unwatch(agent.stdin.fd)
            agent.stdin.close()
        self._kill_within(agent, _REST_GRACE_SECS)
        self._ending.add(agent)
        self._look_wanted = True

    def _end_within(self, agent: Agent, delay_secs: float) -> None:
        """Somebody wants an agent ended: after the delay a full disk holds it up no longer."""
        self._kill_within(agent, delay_secs)

        def give_up() -> None:
            for pipe in agent.outputs:
                self.pump.give_up(pipe)

        if delay_secs > 0:
            self._loop.call_later(delay_secs, give_up)
        else:
            give_up()

    def _kill_within(self, agent: Agent, delay_secs: float) -> None:
        """Kill all of an agent after a delay; of two delays the earlier end counts."""
        due = time.monotonic() + delay_secs
        if agent.kill_at is not None and agent.kill_at <= due:
            return
        agent.kill_at = due

        def kill() -> None:
            if agent.phase in (Phase.RUNNING, Phase.CLEARING):
                self._ending.add(agent)
                self._look_wanted = True
                self._next_look_at = 0.0

        if delay_secs > 0:
            self._loop.call_later(delay_secs, kill)
        else:
            kill()

    def _remember_strays(self) -> None:
        """See who is whose child before parents end."""
        if time.monotonic() - self._looked_at > _REMEMBER_SECS:
            self._looked_at = time.monotonic()
            self._trees.members(self._leaders)

    def _look(self) -> None:
        """Look at the process table once for all agents that are ending."""
        now = self._looked_at = time.monotonic()
        began = time.thread_time()
        members = self._trees.members(self._leaders)
        for agent in list(self._ending):
            self._end_rest(agent, members.get(agent.id, []), now)
        self._look_wanted = bool(self._ending)
        pause = max(_LOOK_SECS, (time.thread_time() - began) * _LOOK_SHARE)
        self._next_look_at = time.monotonic() + pause
        # Also with nothing left: an exit before then asks for a look that has to wait.
        self._loop.call_later(pause, lambda: None)

    def _end_rest(self, agent: Agent, rest: list[int], now: float) -> None:
        kill_at = agent.kill_at if agent.kill_at is not None else now
        if agent.phase is Phase.CLEARING and (not rest or now >= kill_at + _GIVE_UP_SECS):
            if rest:
                print(f"agent {agent.id}: left behind {rest}", file=sys.stderr, flush=True)
            self._tree_is_gone(agent)
        elif now >= kill_at:
            signal_group(agent.pid, signal.SIGKILL)
            signal_all(self._trees, rest, signal.SIGKILL)
        elif agent.phase is Phase.CLEARING and not agent.was_asked:
            agent.was_asked = True
            signal_group(agent.pid, signal.SIGTERM, signal.SIGCONT)
            signal_all(self._trees, rest, signal.SIGTERM, signal.SIGCONT)

    def _tree_is_gone(self, agent: Agent) -> None:
        agent.phase = Phase.DRAINING
        self._ending.discard(agent)
        for pipe in agent.outputs:
            self.pump.finish(pipe)

    def _has_finished(self, agent: Agent) -> None:
        agent.unfinished_streams -= 1
        if agent.unfinished_streams == 0:
            self._reap(agent)

    def _reap(self, agent: Agent) -> None:
        pid, status, usage = os.wait4(agent.pid, os.WNOHANG)
        assert pid == agent.pid, "an agent was reaped before it had exited"
        code = os.waitstatus_to_exitcode(status)
        del self._leaders[agent.pid]
        agent.phase = Phase.ENDED
        if agent.abandoned:
            self.forget(agent.id, remove=True)
        else:
            if agent.grew:
                agent.grew = False
                self._tell(agent.growth())
            self._tell(
                {
                    **agent.growth(),
                    "event": "ended",
                    "exit_code": code if code >= 0 else None,
                    "signal": -code if code < 0 else None,
                    "ended_at_ns": agent.ended_at_ns,
                    "user_secs": usage.ru_utime,
                    "system_secs": usage.ru_stime,
                    # Kilobytes, but bytes on Darwin.
                    "max_rss_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
                }
            )
        self.pump.make_room()
        self._reap_adopted()

    def _reap_adopted(self) -> None:
        """Reap what agents left behind and has ended since, never a leader."""
        if not hasattr(os, "waitid"):
            return
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            # A leader hides those behind it until it is reaped, which comes back here.
            if found is None or found.si_pid in self._leaders:
                return
            os.waitpid(found.si_pid, os.WNOHANG)

    def _has_grown(self, agent: Agent) -> None:
        if not agent.grew and not agent.abandoned:
            agent.grew = True
            self._grown.append(agent)

    def _tell_growth(self) -> None:
        """Report growth at once, then at most every 2 ms for each agent."""
        now = time.monotonic()
        later = []
        congested = self._is_congested()
        for agent in self._grown:
            if not agent.grew:
                continue
            if congested or now - agent.told_growth_at < _GROWTH_SECS:
                later.append(agent)
                continue
            agent.grew = False
            agent.told_growth_at = now
            self._tell(agent.growth())
        self._grown = later
        if later and not self._growth_timer:
            self._growth_timer = True
            self._loop.call_later(_GROWTH_SECS, self._growth_is_due)

    def _growth_is_due(self) -> None:
        self._growth_timer = False
