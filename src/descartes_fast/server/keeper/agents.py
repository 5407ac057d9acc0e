"""All agents of a keeper: started or taken over, commanded, reported and forgotten."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .agent import Agent, Phase
from .backlog import FileBacklog
from .connection import Descriptors
from .endings import Endings
from .growth import Growth
from .input_pipe import BUFFER_BYTES, InputClosed, InputFull, InputPipe
from .launcher import Launcher
from .leader import Adopted, Child, Exit
from .loop import Loop
from .output_files import OpenFiles
from .output_pipe import Budget, OutputPipe, kept
from .own_limits import OwnLimits
from .passing import MAX_DESCRIPTORS
from .proc import StartTicks
from .protocol import Refusal, id_at
from .pump import Pump
from .start import Start, StartFailed, remove_output
from .system import SHORTAGES
from .trees import Trees

__all__ = ["Agents"]


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
        own_limits: OwnLimits,
    ) -> None:
        self.budget = Budget()
        self.files = OpenFiles()
        self.pump = Pump(loop)
        self.growth = Growth(loop, tell, is_congested)
        self.launcher = Launcher()
        self.endings = Endings(
            loop, trees, self.pump, self.launcher.is_starting, self.growth.note, self._has_ended
        )
        self._loop = loop
        self._tell = tell
        self._own_limits = own_limits
        self._agents: dict[str, Agent] = {}
        self._start_ticks = StartTicks()

    @property
    def live(self) -> int:
        """How many agents have not ended."""
        return self.endings.live_count

    @property
    def known(self) -> list[Agent]:
        """All agents that were not forgotten, the ended ones too."""
        return list(self._agents.values())

    def begin(self, request: Mapping[str, Any]) -> Start:
        """Return the start of an agent, for :attr:`launcher`. Raises ``Refusal``."""
        if request["agent"] in self._agents:
            raise Refusal("spawn_failed", "an agent of this id was started already")
        if not {"output_limit_bytes", "output_policy"} <= request.keys():
            raise Refusal("invalid", "a launch says what its output may be")
        try:
            return Start(request, self._own_limits)
        except StartFailed as error:
            raise Refusal("spawn_failed", str(error)) from None

    def started(self, request: Mapping[str, Any], stdin_data: bytes, start: Start) -> Agent:
        """Return the agent of a start whose launch is done. Raises ``Refusal``.

        It is to be watched, unless it has ended by then.
        """
        try:
            start.check()
        except StartFailed as error:
            self.endings.launch_failed()
            raise Refusal("spawn_failed", str(error)) from None
        agent_id, launch = request["agent"], start.launch
        has_exited = launch.has_exited
        if has_exited:
            launch.close_silent_ends()
        agent = Agent(
            agent_id,
            Child(
                self.endings.exits,
                launch.pid,
                self._start_ticks.of(launch.pid, launch.made_between_ns),
            ),
            launch.started_at_ns,
            InputPipe(self._loop, launch.stdin_fd) if launch.stdin_fd >= 0 else None,
            self._output(request, "stdout", launch.stdout_fd),
            self._output(request, "stderr", launch.stderr_fd),
        )
        agent.is_known = False
        try:
            if agent.stdin is not None:
                agent.stdin.queue(stdin_data, close=request["stdin"] == "close-after-task")
            self.endings.attend(agent, has_exited=has_exited)
        except BaseException as error:
            self._give_up(agent, error)
            raise
        self._agents[agent_id] = agent
        self._tell_when_stdin_closes(agent)
        return agent

    def watch(self, agent: Agent) -> None:
        """Notice what an agent does that was started. Raises ``Refusal``; it is gone then."""
        try:
            self.endings.watch(agent)
            if agent.phase is Phase.CLEARING and isinstance(agent.leader, Child):
                agent.leader.hold()
        except BaseException as error:
            del self._agents[agent.id]
            self._give_up(agent, error)
            raise

    def _give_up(self, agent: Agent, error: BaseException) -> None:
        """Let go of an agent that was started. Raises the ``Refusal`` that an ``OSError`` is."""
        self.endings.drop(agent)
        for pipe in agent.outputs:
            remove_output(pipe.path)
        if isinstance(error, OSError):
            raise Refusal("spawn_failed", f"the keeper cannot watch it: {error}") from None

    def adopt(self, request: Mapping[str, Any], descriptors: Descriptors) -> Agent:
        """Take over an agent of an earlier keeper, with the ends of its pipes that are left.

        What its output files hold is what counts as moved. A process that is gone by now is
        fine: its pipes are drained and its end is told. Raises ``Refusal``.
        """
        agent_id = request["agent"]
        if agent_id in self._agents:
            raise Refusal("state", "the keeper has this agent already")
        pid, ticks = request["pid"], request["start_ticks"]
        try:
            lengths = [kept(request[f"{name}_path"]) for name in ("stdout", "stderr")]
        except OSError as error:
            words = f"no file for the output: {error.strerror}"
            raise Refusal(_code(error, "invalid"), words) from None
        for name in ("stdin", "stdout", "stderr"):
            if name in descriptors:
                os.set_blocking(descriptors[name], False)
        try:
            stdin = self._input_again(descriptors)
            leader = Adopted(self._loop, pid, ticks, descriptors.pop("exit", None))
        except OSError as error:
            words = f"process {pid} cannot be held: {error}"
            raise Refusal(_code(error, "unsupported"), words) from None
        agent = Agent(
            agent_id,
            leader,
            request["started_at_ns"],
            stdin,
            self._output(request, "stdout", descriptors.pop("stdout", -1)),
            self._output(request, "stderr", descriptors.pop("stderr", -1)),
        )
        for pipe, (first, end) in zip(agent.outputs, lengths, strict=True):
            pipe.go_on(first, end)
        try:
            self.endings.attend(agent)
            self.endings.watch(agent)
        except OSError as error:
            self.endings.drop(agent)
            raise Refusal("busy", f"the keeper cannot watch it: {error}") from None
        self._agents[agent_id] = agent
        self._tell_when_stdin_closes(agent)
        if agent.stdin is not None:
            agent.stdin.flush()
            if request.get("closing"):
                agent.stdin.close_after_backlog()
        return agent

    def resume(self, agent: Agent) -> None:
        """Take back an agent of this very keeper after it has renewed itself."""
        self._agents[agent.id] = agent
        if agent.phase is Phase.ENDED:
            return
        self._tell_when_stdin_closes(agent)
        self.endings.attend(agent)
        self.endings.watch(agent)
        if agent.stdin is not None:
            agent.stdin.flush()

    def lose(self, agent: Agent) -> None:
        """Kill and forget an agent whose end would not be noticed, as :meth:`resume` failed."""
        agent.leader.send_group(signal.SIGKILL)
        self.endings.drop(agent)
        self._agents.pop(agent.id, None)

    def duplicates(self, agent_ids: Iterable[str]) -> list[tuple[str, dict[str, int]]]:
        """Return the descriptors of agents by name, for as many as go into one message."""
        found: list[tuple[str, dict[str, int]]] = []
        count = 0
        for agent_id in agent_ids:
            agent = self._agents.get(agent_id)
            named = agent.descriptors() if agent is not None else {}
            count += len(named)
            if count > MAX_DESCRIPTORS:
                break
            found.append((agent_id, named))
        return found

    def write(self, agent_id: str, data: bytes, *, close: bool) -> int:
        """Write to an agent's stdin, all or nothing; return its new backlog's file, or -1.

        Raises ``Refusal``.
        """
        stdin = self._find(agent_id).stdin
        if stdin is None:
            raise Refusal("state", "the agent has no stdin")
        had_backlog = stdin.backlog_fd >= 0
        try:
            stdin.write(data, close=close)
        except InputClosed:
            raise Refusal("state", "the agent's stdin is closed") from None
        except InputFull:
            raise Refusal(
                "would_block",
                f"the agent does not read its stdin: {len(data)} bytes more do not fit into "
                f"the {BUFFER_BYTES} bytes kept for it",
            ) from None
        return -1 if had_backlog else stdin.backlog_fd

    def signal(self, agent_id: str, signum: int, *, tree: bool) -> None:
        """Signal an agent's leader, or its whole process group. Raises ``Refusal``."""
        agent = self._find(agent_id)
        if agent.phase is not Phase.RUNNING:
            raise Refusal("state", "the agent has ended")
        try:
            agent.leader.send(signum, group=tree)
        except ProcessLookupError:
            raise Refusal("state", "the agent has ended") from None
        except (OSError, ValueError) as error:
            raise Refusal("invalid", f"signal {signum}: {error}") from None

    def signal_many(self, agent_ids: bytes, signum: int) -> list[tuple[int, str, str]]:
        """Signal the leaders of agents; return which were not: position, code and words.

        ``agent_ids`` has 16 bytes for each.
        """
        refused = []
        for position in self.endings.targets.signal(agent_ids, signum):
            try:
                self.signal(id_at(agent_ids, position), signum, tree=False)
            except Refusal as refusal:
                refused.append((position, refusal.code, refusal.words))
        return refused

    def stop(self, agent_id: str, grace_secs: float) -> None:
        """Ask an agent's group to end, and kill all of it after the grace. Raises ``Refusal``."""
        self.endings.stop(self._find_live(agent_id), grace_secs)

    def kill(self, agent_id: str) -> None:
        """Kill an agent and all that belongs to it. Raises ``Refusal``."""
        self.endings.end_within(self._find_live(agent_id), 0.0)

    def stop_all(self, grace_secs: float, *, again: bool = True) -> None:
        """Stop, or without a grace kill, every agent that has not ended.

        Not ``again``: but those that are being ended already.
        """
        for agent in self.endings.live:
            if not again and agent.give_up_at is not None:
                continue
            if grace_secs > 0:
                self.endings.stop(agent, grace_secs)
            else:
                self.endings.end_within(agent, 0.0)

    def abandon(self, agent_id: str) -> None:
        """Kill an agent that nobody waits for, and forget it with its output."""
        agent = self._agents.get(agent_id)
        if agent is None:
            return
        agent.abandoned = True
        if agent.phase is Phase.ENDED:
            self.forget(agent_id, remove=True)
        else:
            self.endings.end_within(agent, 0.0)

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

    def forget_ended(self, agent_ids: Iterable[str]) -> None:
        """Drop what is known of agents that have ended; others are left, and unknown ones fine."""
        for agent_id in agent_ids:
            agent = self._agents.get(agent_id)
            if agent is not None and agent.phase is Phase.ENDED:
                del self._agents[agent_id]

    def after_turn(self) -> None:
        """Do what is done once for all events of a turn."""
        self.endings.after_turn()
        self.growth.tell()

    def close(self) -> None:
        """Close every descriptor."""
        self.launcher.close()
        for agent in self._agents.values():
            self.endings.close(agent)
        self.endings.exits.close()

    def _find(self, agent_id: str) -> Agent:
        agent = self._agents.get(agent_id)
        if agent is None:
            raise Refusal("not_found", f"the keeper has no agent {agent_id}")
        return agent

    def _find_live(self, agent_id: str) -> Agent:
        agent = self._find(agent_id)
        if agent.phase is Phase.ENDED:
            raise Refusal("state", "the agent has ended")
        return agent

    def _input_again(self, descriptors: Descriptors) -> InputPipe | None:
        """Return the stdin of an earlier keeper's agent, if its end is there still."""
        if "stdin" not in descriptors:
            return None
        left = FileBacklog.found(descriptors["backlog"]) if "backlog" in descriptors else None
        descriptors.pop("backlog", None)
        return InputPipe(self._loop, descriptors.pop("stdin"), left)

    def _tell_when_stdin_closes(self, agent: Agent) -> None:
        """So that nobody keeps a duplicate open, and the agent waiting for the end."""
        if agent.stdin is None:
            return

        def tell() -> None:
            if agent.phase is not Phase.ENDED and not agent.abandoned:
                self._tell({"event": "stdin", "agent": agent.id})

        # Soon: after the reply to whoever asked for it.
        agent.stdin.on_closed = lambda: self._loop.call_soon(tell)

    def _output(self, request: Mapping[str, Any], name: str, fd: int) -> OutputPipe:
        return OutputPipe(
            fd,
            request[f"{name}_path"],
            limit_bytes=request["output_limit_bytes"],
            policy=request["output_policy"],
            budget=self.budget,
            files=self.files,
        )

    def _has_ended(self, agent: Agent, how: Exit) -> None:
        if agent.abandoned:
            self.forget(agent.id, remove=True)
            return
        agent.ended = {
            **agent.growth(),
            "event": "ended",
            "exit_code": how.code,
            "signal": how.signal,
            "unknown": how.status is None,
            "ended_at_ns": agent.ended_at_ns,
            "user_secs": how.user_secs,
            "system_secs": how.system_secs,
            "max_rss_bytes": how.max_rss_bytes,
        }
        if agent.is_known:
            self.growth.tell_last(agent)
            self._tell(agent.ended)
        else:
            agent.grew = False  # its end is told with its start, and so is all that it said


def _code(error: OSError, usual: str) -> str:
    """Return the code of a refusal: another time there may be a descriptor, or memory."""
    return "busy" if error.errno in SHORTAGES else usual
