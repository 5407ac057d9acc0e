"""What the keeper knows of one agent."""

from __future__ import annotations

import enum
from typing import Any

from .input_pipe import InputPipe
from .output_pipe import OutputPipe

__all__ = ["Agent", "Phase"]


class Phase(enum.Enum):
    """How far an agent's end has come. It only moves forward."""

    RUNNING = enum.auto()
    CLEARING = enum.auto()
    """The leader has exited and is not reaped; what it left behind is being ended."""
    DRAINING = enum.auto()
    """No process is left; what the pipes still hold is moved."""
    ENDED = enum.auto()
    """Reaped and reported; remembered until the server has stored the end."""


class Agent:
    """One agent: its leader process, its pipes, and how far its end has come."""

    def __init__(
        self,
        agent_id: str,
        pid: int,
        stdin: InputPipe | None,
        stdout: OutputPipe,
        stderr: OutputPipe,
    ) -> None:
        self.id = agent_id
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.phase = Phase.RUNNING
        self.kill_at: float | None = None
        """When everything that is left gets SIGKILL (monotonic)."""
        self.was_asked = False
        """Whether what the leader left behind has got its SIGTERM."""
        self.abandoned = False
        """Nobody waits for this agent: it is ended and forgotten without a word."""
        self.unfinished_streams = 2
        self.ended_at_ns = 0
        self.grew = False
        self.told_growth_at = 0.0

    @property
    def outputs(self) -> tuple[OutputPipe, OutputPipe]:
        """Both output streams."""
        return self.stdout, self.stderr

    def growth(self) -> dict[str, Any]:
        """Return the header of a ``grew`` event."""
        return {
            "event": "grew",
            "agent": self.id,
            "stdout": (self.stdout.start, self.stdout.end),
            "stderr": (self.stderr.start, self.stderr.end),
        }
