"""Duplicates of the keeper's ends of the agents' pipes, held against the keeper's death.

As long as somebody holds a pipe's other end, its agent can go on writing and reading; a new
keeper gets what is held here. What stdin's pipe did not take is in a file without a name, the
backlog, and that is held too. The other side of it: an agent sees the end of its stdin only
when every duplicate is closed, so they are closed when the keeper has closed its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from .descriptors import is_one_of_the_last
from .keeper.passing import close_all

__all__ = ["DESCRIPTORS_PER_AGENT", "PipeEnds"]

DESCRIPTORS_PER_AGENT = 5
"""stdin, its backlog, stdout, stderr and the process: the most that are held of one agent."""

_INPUT = ("stdin", "backlog")


class PipeEnds:
    """Descriptors by agent and by name (``stdin``, ``backlog``, ``stdout``, ...)."""

    def __init__(self) -> None:
        # By the numbers of their ids: hashing UUIDs is a call into Python.
        self._held: dict[int, dict[str, int]] = {}
        self._missing: set[int] = set()
        self._closing: set[int] = set()

    def take(self, agent_id: UUID, names: Sequence[str], descriptors: Sequence[int] | None) -> None:
        """Hold an agent's descriptors instead of those held before.

        ``None``, or no names: they were lost or could not be made, as none was free at one of the
        two ends; the agent is :attr:`missing` then. So it is if they are the last that this process
        may have: it needs those to do its work.
        """
        self._let_go(agent_id)
        if descriptors is None or not names or is_one_of_the_last(max(descriptors)):
            close_all(descriptors or ())
            self._missing.add(agent_id.int)
        else:
            self._held[agent_id.int] = dict(zip(names, descriptors, strict=True))

    def add(self, agent_id: UUID, names: Sequence[str], descriptors: Sequence[int] | None) -> None:
        """Hold more of an agent, instead of what was held by the same names."""
        held = self._held.get(agent_id.int)
        if held is None or descriptors is None or any(map(is_one_of_the_last, descriptors)):
            close_all(descriptors or ())
            self.miss(agent_id)
            return
        for name, descriptor in zip(names, descriptors, strict=True):
            close_all([held[name]] if name in held else ())
            held[name] = descriptor

    def miss(self, agent_id: UUID) -> None:
        """Something of an agent may not be held that should be."""
        self._missing.add(agent_id.int)

    def of(self, agent_id: UUID) -> dict[str, int]:
        """Return what is held of an agent, by name."""
        return self._held.get(agent_id.int, {})

    @property
    def missing(self) -> list[UUID]:
        """The agents whose descriptors are to be asked for again."""
        return [UUID(int=number) for number in self._missing]

    def will_close_stdin(self, agent_id: UUID) -> None:
        """An agent's stdin ends after its backlog: whoever takes that over must close it then."""
        self._closing.add(agent_id.int)

    def is_closing_stdin(self, agent_id: UUID) -> bool:
        """Whether an agent's stdin ends after its backlog."""
        return agent_id.int in self._closing

    def close_stdin(self, agent_id: UUID) -> None:
        """Close what is held of an agent's stdin."""
        held = self._held.get(agent_id.int, {})
        close_all([held.pop(name) for name in _INPUT if name in held])
        self._closing.discard(agent_id.int)

    def drop(self, agent_id: UUID) -> None:
        """Close all that is held of an agent, which has ended."""
        self._closing.discard(agent_id.int)
        self._let_go(agent_id)

    def close(self) -> None:
        """Close everything. Twice is fine."""
        self._missing.clear()
        self._closing.clear()
        while self._held:
            close_all(self._held.popitem()[1].values())

    def _let_go(self, agent_id: UUID) -> None:
        self._missing.discard(agent_id.int)
        held = self._held.pop(agent_id.int, None)
        if held is not None:
            close_all(held.values())
