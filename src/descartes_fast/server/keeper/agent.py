"""What the keeper knows of one agent."""

from __future__ import annotations

import enum
from typing import Any

from .input_pipe import InputPipe
from .leader import Leader
from .output_pipe import OutputPipe

__all__ = ["Agent", "Phase"]


class Phase(enum.Enum):
    """How far an agent's end has come. It only moves forward."""

    RUNNING = "running"
    CLEARING = "clearing"
    """The leader has exited and is not reaped; what it left behind is being ended."""
    DRAINING = "draining"
    """No process is left; what the pipes still hold is moved."""
    ENDED = "ended"
    """Reaped and reported; remembered until the server has stored the end."""


class Agent:
    """One agent: its leader process, its pipes, and how far its end has come."""

    def __init__(
        self,
        agent_id: str,
        leader: Leader,
        started_at_ns: int,
        stdin: InputPipe | None,
        stdout: OutputPipe,
        stderr: OutputPipe,
    ) -> None:
        self.id = agent_id
        self.leader = leader
        self.started_at_ns = started_at_ns
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.phase = Phase.RUNNING
        self.kill_at: float | None = None
        """When everything that is left gets SIGKILL (monotonic)."""
        self.give_up_at: float | None = None
        """Somebody wants it ended: when a full disk holds that up no longer (monotonic)."""
        self.was_asked = False
        """Whether what the leader left behind has got its SIGTERM."""
        self.abandoned = False
        """Nobody waits for this agent: it is ended and forgotten without a word."""
        self.is_known = True
        """Whether the server was told of it; if it ends before that the same answer says so."""
        self.ended_at_ns = 0
        self.ended: dict[str, Any] | None = None
        """The ``ended`` event, once there is one."""
        self.unfinished: set[OutputPipe] = {stdout, stderr}
        self.grew = False
        self.told_growth_at = 0.0

    @property
    def outputs(self) -> tuple[OutputPipe, OutputPipe]:
        """Both output streams."""
        return self.stdout, self.stderr

    def lengths(self) -> dict[str, Any]:
        """Return what each stream still has: its first offset and its end."""
        return {
            "stdout": (self.stdout.start, self.stdout.end),
            "stderr": (self.stderr.start, self.stderr.end),
        }

    def growth(self) -> dict[str, Any]:
        """Return the header of a ``grew`` event."""
        return {"event": "grew", "agent": self.id, **self.lengths()}

    def describe(self) -> dict[str, Any]:
        """Return an entry of ``list``."""
        return {
            "agent": self.id,
            "pid": self.leader.pid,
            "start_ticks": self.leader.start_ticks,
            "started_at_ns": self.started_at_ns,
            "phase": self.phase.value,
            "stdin": "null" if self.stdin is None else self.stdin.state,
            "stopping": self.give_up_at is not None,
            **self.lengths(),
            "ended": self.ended,
        }

    def descriptors(self) -> dict[str, int]:
        """Return what outlives the keeper if somebody has duplicates, by name.

        Its open ends of the pipes, the leader's descriptor, what is left to write to stdin.
        """
        named = {
            "stdin": -1 if self.stdin is None else self.stdin.fd,
            "stdout": self.stdout.fd,
            "stderr": self.stderr.fd,
            "exit": -1 if self.phase is Phase.ENDED else self.leader.exit_fd,
            "backlog": -1 if self.stdin is None else self.stdin.backlog_fd,
        }
        return {name: fd for name, fd in named.items() if fd >= 0}
