"""What the demo shows: its own words, the agents' output and their status, as it happens."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from uuid import UUID

from .._core import LogStreamMessage, StatusUpdate, StatusUpdateType, to_builtins
from ..errors import DescartesError
from . import exits, screen

if TYPE_CHECKING:
    from rich.console import Console

    from ..subscription import Subscription

__all__ = ["Stage"]

_HIDDEN = (StatusUpdateType.OUTPUT_AVAILABLE, StatusUpdateType.HEARTBEAT)
_COLOURS = ("cyan", "green", "magenta")


class Stage:
    """Prints what happens, line by line: in colour on a terminal, or as JSON if asked."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._cast: dict[UUID, tuple[str, str]] = {}
        self._held: dict[UUID, list[tuple[str, str]]] = {}
        self._rests: dict[UUID, bytes] = {}
        self._console: Console | None = None
        if not as_json and screen.is_terminal() and screen.has_rich():
            from rich.console import Console

            self._console = Console(highlight=False)

    def enters(self, agent_id: UUID, name: str) -> None:
        """Make known who an id belongs to, and print what was held back until now."""
        self._cast[agent_id] = name, _COLOURS[len(self._cast) % len(_COLOURS)]
        for mark, words in self._held.pop(agent_id, []):
            self._of_agent(agent_id, mark, words)

    def say(self, words: str) -> None:
        """Print a line of the demo's own."""
        if not self._as_json:
            self._print(f"\n{words}", "bold")

    def explain(self, words: str) -> None:
        """Print a line that says more about the last one."""
        if not self._as_json:
            self._print(f"  {words}", "dim")

    async def show_output(self, messages: Subscription[LogStreamMessage]) -> None:
        """Print the agents' output, whole lines with the agent's name before each."""
        async for message in messages:
            if self._as_json:
                screen.json_line(to_builtins(message))
                continue
            *lines, rest = (self._rests.get(message.agent_id, b"") + message.data).split(b"\n")
            self._rests[message.agent_id] = rest
            for line in lines:
                self._of_agent(message.agent_id, "|", line.decode(errors="replace"))

    async def show_status(self, updates: Subscription[StatusUpdate]) -> None:
        """Print the agents' changes of status."""
        with contextlib.suppress(DescartesError):  # the server ends while we still look
            async for update in updates:
                if update.update_type in _HIDDEN:
                    continue
                if self._as_json:
                    screen.json_line(to_builtins(update))
                elif update.status is not None:
                    self._of_agent(update.agent_id, "*", f"{update.status.value}{_end(update)}")

    def _of_agent(self, agent_id: UUID, mark: str, words: str) -> None:
        if agent_id not in self._cast:
            # Its first updates are here before the reply that tells its id.
            self._held.setdefault(agent_id, []).append((mark, words))
            return
        name, colour = self._cast[agent_id]
        style = f"{colour} bold" if mark == "*" else colour
        self._print(f"  {name:<6} {mark} {screen.clean(words)}", style)

    def _print(self, words: str, style: str) -> None:
        if self._console is None:
            print(words, flush=True)
        else:
            self._console.print(words, style=style, markup=False, soft_wrap=True)


def _end(update: StatusUpdate) -> str:
    """Return how the agent ended, if this update is its end."""
    if update.status is None or not update.status.is_terminal or not isinstance(update.data, dict):
        return ""
    return f" ({exits.outcome(update.data.get('exit_code'), update.data.get('signal'))})"
