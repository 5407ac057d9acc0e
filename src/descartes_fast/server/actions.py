"""Custom actions on an agent: three that are built in, and the embedding program's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from .._core import AgentInfo
from ..errors import AgentTimeout, ExecutionError, InvalidContext, UsageError
from .agent import Agent

__all__ = ["ActionHandler", "Actions"]

ActionHandler = Callable[[AgentInfo, Any], Awaitable[Any]]

MAX_ACTION_SECS = 86_400.0


class Actions:
    """Handlers by the action's name."""

    def __init__(self, default_timeout_secs: float) -> None:
        self._default_timeout_secs = default_timeout_secs
        self._handlers: dict[str, ActionHandler] = {}

    def register(self, name: str, handler: ActionHandler) -> None:
        """Let ``handler(agent_info, params)`` answer an action.

        What it returns must be a value a message can carry. Raises ``UsageError`` if the name
        is taken or built in.
        """
        if not name or name in _BUILT_IN or name in self._handlers:
            raise UsageError(f"an action of the name {name!r} cannot be registered")
        self._handlers[name] = handler

    async def run(self, agent: Agent, action: str, params: Any, timeout_secs: float | None) -> Any:
        """Return what the action's handler returns.

        Raises ``InvalidContext`` for an action that nobody registered, ``AgentTimeout`` if the
        handler takes too long, and what the handler raises.
        """
        built_in = _BUILT_IN.get(action)
        if built_in is not None:
            return built_in(agent, params)
        handler = self._handlers.get(action)
        if handler is None:
            known = ", ".join(sorted([*_BUILT_IN, *self._handlers]))
            raise InvalidContext(f"unknown action {action[:80]!r}; there are: {known}")
        secs = self._default_timeout_secs if timeout_secs is None else timeout_secs
        secs = min(secs, MAX_ACTION_SECS)
        try:
            async with asyncio.timeout(secs) as limit:
                return await handler(agent.info(), params)
        except TimeoutError:
            if not limit.expired():  # the handler's own
                raise
            raise AgentTimeout(f"the action {action!r} took over {secs:g} s") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this: it is something inside the handler that was cancelled.
            raise ExecutionError(f"the handler of the action {action!r} was cancelled") from None


def _echo(agent: Agent, params: Any) -> Any:
    return params


def _ping(agent: Agent, params: Any) -> Any:
    return {"pong": True, "agent_id": str(agent.id), "status": agent.status.value}


def _get_env(agent: Agent, params: Any) -> Any:
    """Answer with name, status and age: never with the environment, which holds keys."""
    end_ns = time.time_ns() if agent.ended_at_ns is None else agent.ended_at_ns
    return {
        "agent_id": str(agent.id),
        "name": agent.name,
        "model_backend": agent.model_backend,
        "status": agent.status.value,
        "age_secs": max(0, end_ns - agent.started_at_ns) / 1e9,
    }


_BUILT_IN: dict[str, Callable[[Agent, Any], Any]] = {
    "echo": _echo,
    "get_env": _get_env,
    "ping": _ping,
}
