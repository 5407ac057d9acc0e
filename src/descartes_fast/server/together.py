"""The commands that many agents get in one step: a signal, and the question for their status.

For a thousand agents the keeper is asked a few times instead of a thousand times. What takes a step
of its own for each agent is not here: a pause, a stop, a write, an action.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import Any

from .._core import BatchControlCommand, ControlCommandType
from .._core.batches import batch_ids
from ..errors import AgentError, InvalidState, NotFound
from .agent import Agent, may_end_by
from .keeper.protocol import ID_BYTES
from .keeper_link import KeeperLink
from .payloads import MORE_THAN_SIGNALS, signal_number
from .registry import Registry, not_found

__all__ = ["Addressed", "Command", "Together"]

_AT_ONCE = 2000
"""Agents in one request to the keeper: it does nothing else for a millisecond then."""


class Addressed:
    """Whom a batch is for: their ids at once, the agents themselves when they are wanted."""

    def __init__(self, request: BatchControlCommand, registry: Registry) -> None:
        self.ids = batch_ids(request)
        """In the order in which they were given, 16 bytes each."""
        self._request = request
        self._registry = registry

    def __len__(self) -> int:
        return len(self.ids) // ID_BYTES

    @cached_property
    def agents(self) -> list[Agent | None]:
        """In the same order; ``None`` stands for one that is not there."""
        return self._registry.find_all(self._request.agent_ids)

    def found(self, position: int) -> Agent:
        """Return one of the agents. Raises ``NotFound``."""
        agent = self.agents[position]
        if agent is None:
            raise not_found(self._request.agent_ids[position])
        return agent


Command = Callable[[Addressed, str], Coroutine[Any, Any, dict[int, AgentError]]]
"""Does one command for agents; whoever else does it is asked at once.

Its second argument is the request's key. To be awaited: why it was not done for some, by position.
"""


class Together:
    """Knows which commands can be done for many agents in one step, and does them."""

    def __init__(self, keeper: KeeperLink) -> None:
        self._keeper = keeper

    def command(self, command: ControlCommandType, payload: Any) -> Command | None:
        """Return what does a command for many, ``None`` if each needs a step of its own.

        Raises ``InvalidContext`` for a payload that is none of this command.
        """
        if command is ControlCommandType.GET_STATUS:
            return _ask_who_is_there
        if command is ControlCommandType.SIGNAL:
            number = signal_number(payload)
            if number not in MORE_THAN_SIGNALS:
                return lambda batch, key: self._signal(batch, number, key)
        return None

    def _signal(
        self, batch: Addressed, number: int, key: str
    ) -> Coroutine[Any, Any, dict[int, AgentError]]:
        # All are asked for, those too that have ended: where an earlier server had this very
        # request carried out the keeper remembers whom it reached while they lived.
        if may_end_by(number):
            for agent in batch.agents:
                if agent is not None:
                    agent.signal_asked(number)
        asked = []
        for first in range(0, len(batch), _AT_ONCE):
            ids = batch.ids[first * ID_BYTES : (first + _AT_ONCE) * ID_BYTES]
            # With how many they are: to a version that asks for more at once it is another part.
            part = f"{key}/{first}+{len(ids) // ID_BYTES}" if key else ""
            asked.append(self._keeper.signal_many(ids, number, key=part))
        return _errors(batch, asked)


async def _errors(
    batch: Addressed, asked: list[Coroutine[Any, Any, dict[int, AgentError]]]
) -> dict[int, AgentError]:
    answers = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)
    return {
        first + position: _why(batch, first + position, error)
        for first, refused in zip(range(0, len(batch), _AT_ONCE), answers, strict=True)
        for position, error in refused.items()
    }


def _why(batch: Addressed, position: int, error: AgentError) -> AgentError:
    """Return the better words of the two: the keeper does not know what is about to start."""
    try:
        batch.found(position).require_alive("signal")
    except (NotFound, InvalidState) as better:
        return better
    return error


async def _ask_who_is_there(batch: Addressed, key: str) -> dict[int, AgentError]:
    return {}
