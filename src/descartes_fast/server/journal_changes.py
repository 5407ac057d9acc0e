"""What was recorded since the last commit, each thing in its last state."""

from __future__ import annotations

from uuid import UUID

from .journal_records import AgentRecord

__all__ = ["Changes", "Reply"]

Reply = tuple[int, str, bytes]
"""Number, key and the reply itself."""


class Changes:
    """A group, to be written in one transaction."""

    __slots__ = ("agents", "begun", "cursors", "forgotten", "replies", "withdrawn")

    def __init__(self) -> None:
        self.agents: dict[int, AgentRecord | None] = {}
        """By the number of its id; ``None`` for one that is removed."""
        self.cursors: dict[tuple[UUID, str], int] = {}
        """Read cursors of agents whose record is older than that."""
        self.replies: dict[str, list[Reply]] = {}
        """By memory, the oldest first."""
        self.begun: dict[int, tuple[str, str]] = {}
        """By number: memory and key."""
        self.withdrawn: set[int] = set()
        """Numbers of what was begun in an earlier group and is no longer so."""
        self.forgotten: dict[str, int] = {}
        """By memory: the number before which replies are not remembered any more."""

    def save_agent(self, agent_id: UUID, record: AgentRecord | None) -> None:
        self.agents[agent_id.int] = record
        if self.cursors:  # the record has them
            self.cursors.pop((agent_id, "stdout"), None)
            self.cursors.pop((agent_id, "stderr"), None)

    def withdraw(self, number: int) -> None:
        if self.begun.pop(number, None) is None:
            self.withdrawn.add(number)

    def forget(self, memory: str, before: int) -> None:
        self.forgotten[memory] = before
        replies = self.replies.get(memory)
        if replies is not None and replies[0][0] < before:  # they could not be written for a while
            replies[:] = [reply for reply in replies if reply[0] >= before]
            if not replies:
                del self.replies[memory]
