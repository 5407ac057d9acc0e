"""The commands that many agents get in one step: a signal, and the question for their status.

For a thousand agents the keeper is asked a few times instead of a thousand times. What takes a step
of its own for each agent is not here: a pause, a stop, a write, an action.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .._core import ControlCommandType
from ..errors import AgentError, InvalidState
from .agent import Agent, may_end_by
from .keeper_link import KeeperLink
from .payloads import MORE_THAN_SIGNALS, signal_number

__all__ = ["Command", "Together"]

Command = Callable[[Sequence[Agent | None], str], Awaitable[dict[int, AgentError]]]
"""Does one command for agents; the place of one that is not there is ``None``.

Its second argument is the request's key. Returns why it was not done for some, by position.
"""

_AT_ONCE = 500
"""Agents in one request to the keeper: it does nothing else for a third of a millisecond then, and
begins with the first of several requests while the server still writes the others."""


class Together:
    """Knows which commands can be done for many agents in one step, and does them."""

    def __init__(self, keeper: KeeperLink) -> None:
        self._keeper = keeper

    def command(self, command: ControlCommandType, payload: Any) -> Command | None:
        """Return what does a command for many, ``None`` if each needs a step of its own.

        Raises ``InvalidContext`` for a payload that is none of this command.
        """
        if command is ControlCommandType.GET_STATUS:
            return _nothing_to_do
        if command is ControlCommandType.SIGNAL:
            number = signal_number(payload)
            if number not in MORE_THAN_SIGNALS:
                return lambda agents, key: self._signal(agents, number, key)
        return None

    async def _signal(
        self, agents: Sequence[Agent | None], number: int, key: str
    ) -> dict[int, AgentError]:
        if may_end_by(number):
            for agent in agents:
                if agent is not None:
                    agent.signal_asked(number)
        parts = range(0, len(agents), _AT_ONCE)
        answers = await asyncio.gather(
            *(
                self._signal_some(agents[first : first + _AT_ONCE], first, number, key)
                for first in parts
            )
        )
        return {position: error for errors in answers for position, error in errors.items()}

    async def _signal_some(
        self, agents: Sequence[Agent | None], first: int, number: int, key: str
    ) -> dict[int, AgentError]:
        # Those that have ended are asked for, too: where an earlier server had this very request
        # carried out the keeper remembers whom it reached while they lived.
        asked = [agent for agent in agents if agent is not None]
        texts = [agent.id_text for agent in asked]
        refused = await self._keeper.signal_many(texts, number, key=f"{key}/{first}" if key else "")
        if not refused:
            return {}
        positions = [at for at, agent in enumerate(agents, first) if agent is not None]
        return {positions[at]: _why(asked[at], error) for at, error in refused.items()}


def _why(agent: Agent, error: AgentError) -> AgentError:
    """Return the better words of the two: the keeper does not know what is about to start."""
    try:
        agent.require_alive("signal")
    except InvalidState as better:
        return better
    return error


async def _nothing_to_do(agents: Sequence[Agent | None], key: str) -> dict[int, AgentError]:
    return {}
