"""Duplicates of the keeper's ends of the agents' pipes, held against the keeper's death.

As long as somebody holds a pipe's other end, its agent can go on writing and reading; a new
keeper gets what is held here. The other side of it: an agent sees the end of its stdin only
when every duplicate is closed, so they are closed with the keeper's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from uuid import UUID

from .descriptors import is_one_of_the_last
from .keeper.passing import close_all

__all__ = ["DESCRIPTORS_PER_AGENT", "PipeEnds"]

DESCRIPTORS_PER_AGENT = 4
"""stdin, stdout, stderr and the process itself: the most that are held of one agent."""

_STDIN = "stdin"


class PipeEnds:
    """Descriptors by agent and by name (``stdin``, ``stdout``, ``stderr``, ``exit``)."""

    def __init__(self) -> None:
        self._held: dict[UUID, dict[str, int]] = {}
        self._missing: set[UUID] = set()

    def take(self, agent_id: UUID, names: Sequence[str], descriptors: Sequence[int] | None) -> None:
        """Hold an agent's descriptors instead of those held before.

        ``None``, or no names: they were lost or could not be made, as none was free at one of the
        two ends; the agent is :attr:`missing` then. So it is if they are the last that this process
        may have: it needs those to do its work.
        """
        self.drop(agent_id)
        if descriptors is None or not names or any(map(is_one_of_the_last, descriptors)):
            close_all(descriptors or ())
            self._missing.add(agent_id)
        else:
            self._held[agent_id] = dict(zip(names, descriptors, strict=True))

    def of(self, agent_id: UUID) -> dict[str, int]:
        """Return what is held of an agent, by name."""
        return self._held.get(agent_id, {})

    @property
    def missing(self) -> list[UUID]:
        """The agents whose descriptors are to be asked for again."""
        return list(self._missing)

    def close_stdin(self, agent_id: UUID) -> None:
        """Close the duplicate of an agent's stdin, if one is held."""
        descriptor = self._held.get(agent_id, {}).pop(_STDIN, None)
        if descriptor is not None:
            os.close(descriptor)

    def drop(self, agent_id: UUID) -> None:
        """Close all that is held of an agent."""
        self._missing.discard(agent_id)
        close_all(self._held.pop(agent_id, {}).values())

    def close(self) -> None:
        """Close everything. Twice is fine."""
        self._missing.clear()
        while self._held:
            close_all(self._held.popitem()[1].values())
