"""One control command for many agents, each with a result of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import CoroutineType

from .._core import (
    BatchAgentResult,
    BatchControlCommand,
    BatchControlResponse,
    ControlCommandType,
)
from ..errors import AgentError, AgentTimeout, InvalidContext, InvalidState
from .agent import Agent
from .operations import Operations
from .refusals import MAX_BATCH_AGENTS, as_agent_error, words_of
from .registry import Registry, not_found
from .together import Together

__all__ = ["run_batch"]

_IN_FLIGHT = 64

_WITH_DATA = frozenset(
    {
        ControlCommandType.READ_STDOUT,
        ControlCommandType.READ_STDERR,
        ControlCommandType.QUERY_OUTPUT,
        ControlCommandType.STREAM_LOGS,
    }
)


async def run_batch(
    request: BatchControlCommand,
    registry: Registry,
    operations: Operations,
    together: Together,
    timeout_secs: float,
    key: str,
) -> BatchControlResponse:
    """Return the results in the order in which the agents were given.

    What can be done for all of them in one step is; else at most 64 are in flight. With
    ``fail_fast`` nothing is begun after the first failure; the agents that it leaves out have
    a result that says so. Raises ``InvalidContext`` for too many agents and for commands
    whose answer is data, which a batch has no room for (and a read would lose).
    """
    agent_ids = request.agent_ids
    if len(agent_ids) > MAX_BATCH_AGENTS:
        raise InvalidContext(f"a batch may have {MAX_BATCH_AGENTS} agents")
    if request.command_type in _WITH_DATA:
        raise InvalidContext(
            f"the results of a batch carry no data: {request.command_type.value} agents one by one"
        )
    batch = _Batch(request, registry.find_all(agent_ids), key)
    try:
        async with asyncio.timeout(timeout_secs) as limit:
            await batch.run(operations, together)
    except TimeoutError:
        if not limit.expired():
            raise
        batch.give_up(AgentTimeout(f"the batch took over {timeout_secs:g} s"))
    return batch.response()


class _Batch:
    """The agents of a batch, by their positions in it, and why the command was not done."""

    def __init__(self, request: BatchControlCommand, agents: list[Agent | None], key: str) -> None:
        self._request = request
        self._payload = request.payload  # decoded once, not for each agent
        self._agents = agents
        self._key = key
        self._errors: dict[int, AgentError] = {}
        self._undone = set(range(len(agents)))

    async def run(self, operations: Operations, together: Together) -> None:
        """Do the command for all that are there, together or one by one."""
        in_one_step = None
        if not self._request.fail_fast:
            in_one_step = together.command(self._request.command_type, self._payload)
        if in_one_step is not None:
            self._errors = await in_one_step(self._agents, self._key)
            for position, agent in enumerate(self._agents):
                if agent is None:
                    self._errors[position] = not_found(self._request.agent_ids[position])
            self._undone.clear()
            return
        left = iter(range(len(self._agents)))
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_IN_FLIGHT, len(self._agents))):
                group.create_task(self._work(left, operations))

    def give_up(self, error: AgentError) -> None:
        """Say of all that is not done that it failed."""
        self._errors.update(dict.fromkeys(self._undone, error))

    def response(self) -> BatchControlResponse:
        """Return each agent's result, with the status that it has now."""
        errors = self._errors
        results = [
            agent.granted()
            if agent is not None and (not errors or position not in errors)
            else self._failed(position)
            for position, agent in enumerate(self._agents)
        ]
        return BatchControlResponse(
            request_id=self._request.request_id,
            success=not errors,
            results=results,
            successful=len(results) - len(errors),
            failed=len(errors),
        )

    def _failed(self, position: int) -> BatchAgentResult:
        agent = self._agents[position]
        return BatchAgentResult(
            agent_id=self._request.agent_ids[position],
            success=False,
            status=None if agent is None else agent.status,
            error=words_of(self._errors[position], of_many=True),
        )

    async def _work(self, left: Iterator[int], operations: Operations) -> None:
        for position in left:
            try:
                await self._do(position, operations)
            except Exception as error:
                self._errors[position] = as_agent_error(error)
            self._undone.discard(position)

    async def _do(self, position: int, operations: Operations) -> None:
        agent = self._agents[position]
        if self._errors and self._request.fail_fast:
            raise InvalidState("not tried: the command failed for another agent (fail_fast)")
        if agent is None:
            raise not_found(self._request.agent_ids[position])
        # An agent that is given twice gets the command twice.
        key = f"{self._key}/{position}" if self._key else ""
        outcome = operations.run(agent, self._request.command_type, self._payload, key)
        if type(outcome) is CoroutineType:
            await outcome
