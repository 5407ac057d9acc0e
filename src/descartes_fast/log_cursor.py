"""How far one stream of one agent has been followed, and what has come too early for it."""

from __future__ import annotations

import math
from collections import deque
from uuid import UUID

from ._core import LogStreamMessage, LogStreamType, replace

__all__ = ["Cursor", "from_byte", "held_size"]

# What a message takes beside its data, roughly.
_OVERHEAD_BYTES = 512


class Cursor:
    """A place in a stream: all before ``next`` is queued, all before ``end`` exists."""

    __slots__ = (
        "_patient_at",
        "agent_id",
        "due",
        "end",
        "held",
        "next",
        "nothing_read",
        "stream",
    )

    def __init__(self, agent_id: UUID, stream: LogStreamType, start: int) -> None:
        self.agent_id = agent_id
        self.stream = stream
        self.next = start
        """The first byte that has not been queued yet."""
        self.end = start
        """The length that the stream is known to have."""
        self.held: deque[LogStreamMessage] = deque()
        """What was published behind a gap, in order: it is queued when the gap is filled."""
        self.due = math.inf
        """When what is missing is to be read."""
        self.nothing_read = 0
        """How many reads in a row brought nothing where there should be something."""
        self._patient_at = -1

    @property
    def gap_end(self) -> int:
        """Where what is missing at ``next`` ends: at what is held, or at the stream's end."""
        return self.held[0].sequence if self.held else self.end

    @property
    def held_end(self) -> int:
        """Where what is published next is held behind what is held already."""
        return self.held[-1].sequence + len(self.held[-1].data) if self.held else self.next

    def read_now(self, now: float) -> None:
        """What is missing is to be read."""
        self.due = min(self.due, now)
        self._patient_at = -1

    def read_unless_published(self, when: float) -> None:
        """What is missing is to be read if nothing more of it is published until ``when``."""
        if when < self.due:
            self.due = when
            self._patient_at = self.next

    def is_being_published(self, again_at: float) -> bool:
        """Tell whether, after all, more was published; then it is to be looked at ``again_at``."""
        if not 0 <= self._patient_at < self.next:
            return False
        self._patient_at = self.next
        self.due = again_at
        return True


def from_byte(message: LogStreamMessage, start: int) -> LogStreamMessage:
    """Return a message without what comes before the byte ``start`` of its stream."""
    if message.sequence >= start:
        return message
    return replace(message, data=message.data[start - message.sequence :], sequence=start)


def held_size(message: LogStreamMessage) -> int:
    """Return how many bytes a message that is held is counted as."""
    return len(message.data) + _OVERHEAD_BYTES
