"""One agent: what is known of it and the changes of its state; knows no ZeroMQ.

Each change of state raises ``seq`` by one, which the status update that is published of it has
too, so that whoever reads the state and whoever follows the updates can put them in order.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from .._core import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    BatchAgentResult,
    LogStreamType,
    PauseMode,
    StatusUpdate,
    StatusUpdateType,
)
from .._core.ids import id_text
from ..config import OutputPolicy
from ..errors import ExecutionError, InvalidState
from .backends import LaunchPlan
from .keeper_messages import Ended, OutputGrew, Started
from .output import OutputFile

__all__ = ["KEPT_TASK_CHARACTERS", "Agent", "AgentObserver", "may_end_by"]

SIGNAL_COUNTS_SECS = 10
"""An agent that ends by a signal that long after a client had it sent ended by that request.

Time enough to clean up and die of it; who survived it and is killed by another one later was not.
"""

_NEVER_FATAL = frozenset(
    {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, getattr(signal, "SIGWINCH", signal.SIGURG)}
)
"""By default these are ignored, or wake (``signal(7)``)."""

_NOTE_AGAIN_NS = 10**9
"""The same signal again is noted when the note is that old: many are not as many notes."""

UNSEEN = "nobody saw how it ended: its keeper was gone by then"
"""What is said of an end whose exit code is not known."""

_MAY_HAVE_RUN = "the keeper was lost while it started the agent: it may have run, and was killed"
"""What is said of an agent whose program may have been executed or not."""

KEPT_TASK_CHARACTERS = 4096
"""A longer task is shown by its beginning; the agent gets all of it."""


class AgentObserver(Protocol):
    """Who is told what happens to agents."""

    def state_changed(self, agent: Agent) -> None:
        """The agent lives on in another state."""

    def was_noted(self, agent: Agent) -> None:
        """Something about the agent that a later server must know: what was asked of it."""

    def output_grew(self, agent: Agent) -> None:
        """There is more output than before."""

    def ended(self, agent: Agent) -> None:
        """The agent has ended; its output is complete. Said once."""


class Agent:
    """An agent from the moment its spawn is accepted until its retention is over."""

    def __init__(
        self,
        agent_id: UUID,
        config: AgentConfig,
        plan: LaunchPlan,
        *,
        metadata: Mapping[str, str] | None,
        stdout: OutputFile,
        stderr: OutputFile,
        observer: AgentObserver,
        output_limit_bytes: int = 0,
        output_policy: OutputPolicy = "trim",
        request_key: str = "",
        stored_config: bytes = b"",
    ) -> None:
        self.id = agent_id
        self.id_text = id_text(agent_id)
        self.name = config.name
        self.model_backend = config.model_backend
        self.task = _shortened(config.task)
        self.metadata = dict(metadata or {})
        self.pause_policy = plan.pause
        self.stop_grace_secs = plan.stop_grace_secs
        self.stdout = stdout
        self.stderr = stderr
        self.output_limit_bytes = output_limit_bytes
        self.output_policy: OutputPolicy = output_policy
        self.request_key = request_key
        self.stored_config = stored_config
        self.status = AgentStatus.INITIALIZING
        self.seq = 0
        self.pid: int | None = None
        self.start_ticks = 0
        self.started_at_ns = time.time_ns()
        self.ended_at_ns: int | None = None
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.message: str | None = None
        self.user_secs = self.system_secs = 0.0
        self.max_rss_bytes = 0
        self.paused_at_ns: int | None = None
        self.pause_mode: PauseMode | None = None
        self.pause_noticed = False
        self._stop_by_ns: int | None = None
        self._pause_begun = False
        self.signals_asked_ns: dict[int, int] = {}
        """When clients had signals sent, by number."""
        self.cursors = {LogStreamType.STDOUT: 0, LogStreamType.STDERR: 0}
        self.pausing = asyncio.Lock()
        self._observer = observer
        self._early_end: Ended | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._info: AgentInfo | None = None
        self.on_outdated: Callable[[], None] | None = None
        """Called once, before anybody hears that :meth:`status_data` is not what it was."""
        self.on_status_outdated: Callable[[], None] | None = None
        """Called once, before anybody hears that the status is not what it was."""

    # -- what is known ---------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        return self.status.is_terminal

    @property
    def stop_asked(self) -> bool:
        """Whether the agent's end will be one that was asked for."""
        return self._stop_by_ns is not None

    @property
    def stop_by_ns(self) -> int | None:
        """When the grace of an agent ends that was asked to end; ``None`` if it was not."""
        return self._stop_by_ns

    @stop_by_ns.setter
    def stop_by_ns(self, by_ns: int | None) -> None:
        if by_ns != self._stop_by_ns:
            self._stop_by_ns = by_ns
            self._note()

    @property
    def pause_begun(self) -> bool:
        """Whether the agent is being stopped for a pause: SIGSTOP may have been sent."""
        return self._pause_begun

    @pause_begun.setter
    def pause_begun(self, begun: bool) -> None:
        if begun != self._pause_begun:
            self._pause_begun = begun
            self._note()

    def output(self, stream: LogStreamType) -> OutputFile:
        """Return one of the two streams."""
        return self.stdout if stream is LogStreamType.STDOUT else self.stderr

    def info(self) -> AgentInfo:
        """Return what listings show of the agent."""
        if self._info is None:
            self._info = AgentInfo(
                id=self.id,
                name=self.name,
                status=self.status,
                model_backend=self.model_backend,
                started_at=self.started_at_ns,
                task=self.task,
                paused_at=self.paused_at_ns,
                pause_mode=self.pause_mode,
            )
        return self._info

    def granted(self) -> BatchAgentResult:
        """Return what the answer to a batch says of the agent where all went well."""
        return BatchAgentResult(agent_id=self.id, success=True, status=self.status)

    def status_data(self) -> dict[str, Any]:
        """Return what ``get_status`` answers."""
        return {
            "status": self.status.value,
            "seq": self.seq,
            "pid": self.pid,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "started_at": _rfc3339(self.started_at_ns),
            "ended_at": None if self.ended_at_ns is None else _rfc3339(self.ended_at_ns),
            "stdout_bytes": self.stdout.end,
            "stderr_bytes": self.stderr.end,
            "metadata": self.metadata,
        }

    def status_update(self) -> StatusUpdate:
        """Return what is published of the last change of state."""
        data: dict[str, Any] = {"seq": self.seq}
        if self.has_ended:
            data["exit_code"] = self.exit_code
            data["signal"] = self.signal
            data["stdout_bytes"] = self.stdout.end
            data["stderr_bytes"] = self.stderr.end
        elif self.pause_mode is not None:
            data["mode"] = self.pause_mode.value
        elif self.status is AgentStatus.RUNNING:
            data["pid"] = self.pid
        return StatusUpdate(
            agent_id=self.id,
            update_type=_END_UPDATES.get(self.status, StatusUpdateType.STATUS_CHANGED),
            status=self.status,
            message=self.message,
            data=data,
        )

    def outdate(self) -> None:
        """Let nobody answer any more with what :meth:`status_data` was."""
        on_outdated, self.on_outdated = self.on_outdated, None
        if on_outdated is not None:
            on_outdated()

    def outdate_status(self) -> None:
        """Let nobody answer any more with what the status was, nor with what came with it."""
        self._info = None
        self.outdate()
        on_outdated, self.on_status_outdated = self.on_status_outdated, None
        if on_outdated is not None:
            on_outdated()

    def require_alive(self, doing: str) -> None:
        """Raise ``InvalidState`` unless the agent runs or is paused."""
        if not self.has_ended and self.status is not AgentStatus.INITIALIZING:
            return
        state = "is still starting" if not self.has_ended else f"has ended ({self.status.value})"
        raise InvalidState(f"cannot {doing}: the agent {state}", agent_id=str(self.id))

    def require_known_start(self) -> None:
        """Raise ``ExecutionError`` if nobody knows whether the program was executed."""
        if self.message == _MAY_HAVE_RUN:
            raise ExecutionError(_MAY_HAVE_RUN, agent_id=str(self.id))

    async def wait_for_news(self) -> None:
        """Return when there is more output, or the state has changed."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def wait_until_started(self) -> None:
        """Return when the program runs, or will not run any more."""
        while self.status is AgentStatus.INITIALIZING:
            await self.wait_for_news()

    # -- what happens to it ----------------------------------------------------------

    def accepted(self) -> None:
        """The spawn is granted; the program is not running yet."""
        self._change(AgentStatus.INITIALIZING)

    def started(self, started: Started) -> None:
        """The exec has succeeded."""
        self.pid = started.pid
        self.start_ticks = started.start_ticks
        self.started_at_ns = started.started_at_ns
        self._change(AgentStatus.RUNNING)
        if self._early_end is not None:
            self.ended(self._early_end)

    def start_failed(self, reason: str) -> None:
        """The program could not be started; there never was a process."""
        self._end(AgentStatus.FAILED, reason)

    def paused(self, mode: PauseMode) -> None:
        """The agent was stopped, or asked to pause in the way its backend promises to follow."""
        self.paused_at_ns = time.time_ns()
        self.pause_mode = mode
        self._pause_begun = False
        self._change(AgentStatus.PAUSED)

    def resumed(self) -> None:
        """The agent runs again, and takes the signals that were waiting for that."""
        now_ns = time.time_ns()
        for number, asked_ns in self.signals_asked_ns.items():
            if self.paused_at_ns is not None and asked_ns >= self.paused_at_ns:
                self.signals_asked_ns[number] = now_ns
        self.paused_at_ns = self.pause_mode = None
        self._change(AgentStatus.RUNNING)

    def output_grew(self, event: OutputGrew) -> None:
        """The keeper has written more output to the files, or trimmed them."""
        self.measure(event)
        self.tell_output()

    def tell_output(self) -> None:
        """Tell whoever waits for output, or publishes it, how much there is."""
        self._wake()
        self._observer.output_grew(self)

    def measure(self, event: OutputGrew | Ended) -> None:
        """Note how long the streams are, and tell nobody."""
        self.outdate()
        # Streams only grow: what was said before a restart may be heard after it.
        stdout, stderr = self.stdout, self.stderr
        stdout.start = max(stdout.start, event.stdout_start)
        stdout.end = max(stdout.end, event.stdout_bytes)
        stderr.start = max(stderr.start, event.stderr_start)
        stderr.end = max(stderr.end, event.stderr_bytes)

    def ended(self, event: Ended) -> None:
        """The process is gone and its output complete."""
        if self.status is AgentStatus.INITIALIZING:
            # The news of a short life can overtake the answer to the launch in this
            # process; an agent never ends before it has run.
            self._early_end = event
            return
        if self.has_ended:
            return
        self.measure(event)
        self.exit_code = event.exit_code
        self.signal = event.signal
        self.ended_at_ns = event.ended_at_ns
        self.user_secs, self.system_secs = event.user_secs, event.system_secs
        self.max_rss_bytes = event.max_rss_bytes
        if self.stop_asked or self._was_asked_for(event):
            self._end(AgentStatus.TERMINATED, UNSEEN if event.unknown else None)
        elif event.exit_code == 0:
            self._end(AgentStatus.COMPLETED, None)
        else:
            self._end(AgentStatus.FAILED, _reason(event))

    def signal_asked(self, number: int) -> None:
        """A client has the signal sent: an end by it that soon follows is not a failure."""
        if self.has_ended or not may_end_by(number):
            return
        now_ns = time.time_ns()
        earlier_ns = self.signals_asked_ns.get(number, 0)
        self.signals_asked_ns[number] = now_ns
        if now_ns - earlier_ns >= _NOTE_AGAIN_NS:
            self._note()

    def _was_asked_for(self, event: Ended) -> bool:
        asked_ns = None if event.signal is None else self.signals_asked_ns.get(event.signal)
        return asked_ns is not None and event.ended_at_ns - asked_ns <= SIGNAL_COUNTS_SECS * 10**9

    def lost(self, reason: str) -> None:
        """The keeper is gone and with it the agent's exit status, or whether it ran at all."""
        if self.status is AgentStatus.INITIALIZING:
            reason = _MAY_HAVE_RUN
        if not self.has_ended:
            self._end(AgentStatus.TERMINATED if self.stop_asked else AgentStatus.FAILED, reason)

    def _end(self, status: AgentStatus, message: str | None) -> None:
        if self.ended_at_ns is None:
            self.ended_at_ns = time.time_ns()
        self.paused_at_ns = self.pause_mode = None
        self.status = status
        self.message = message
        self.seq += 1
        self.outdate_status()
        self._wake()
        self._observer.ended(self)

    def _change(self, status: AgentStatus) -> None:
        self.status = status
        self.seq += 1
        self.outdate_status()
        self._wake()
        self._observer.state_changed(self)

    def _note(self) -> None:
        if not self.has_ended:
            self._observer.was_noted(self)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


_END_UPDATES = {
    AgentStatus.COMPLETED: StatusUpdateType.COMPLETED,
    AgentStatus.FAILED: StatusUpdateType.ERROR,
    AgentStatus.TERMINATED: StatusUpdateType.TERMINATED,
}


def may_end_by(number: int) -> bool:
    """Tell whether a process can end by a signal: nothing does by those that are ignored."""
    return number not in _NEVER_FATAL


def _shortened(task: str) -> str:
    """Return what is kept of a task: it stays for the whole retention, in many messages."""
    if len(task) <= KEPT_TASK_CHARACTERS:
        return task
    return task[:KEPT_TASK_CHARACTERS] + "..."


def _reason(event: Ended) -> str:
    if event.unknown:
        return UNSEEN
    if event.signal is None:
        return f"exit code {event.exit_code}"
    try:
        return f"killed by {signal.Signals(event.signal).name}"
    except ValueError:
        return f"killed by signal {event.signal}"


def _rfc3339(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="microseconds")
