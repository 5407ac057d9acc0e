"""One control command for many agents: concurrently, each with a result of its own."""

from __future__ import annotations

import asyncio
from types import CoroutineType
from uuid import UUID

from .._core import (
    BatchAgentResult,
    BatchControlCommand,
    BatchControlResponse,
    ControlCommandType,
)
from ..errors import AgentTimeout, InvalidContext, InvalidState
from .agent import Agent
from .operations import Operations
from .refusals import MAX_BATCH_AGENTS, as_agent_error, words_of
from .registry import Registry

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
    timeout_secs: float,
    key: str,
) -> BatchControlResponse:
    """Return the results in the order in which the agents were given, at most 64 in flight.

    With ``fail_fast`` nothing is begun after the first failure; the agents that it leaves out have
    a result that says so. Raises ``InvalidContext`` for too many agents and for commands
    whose answer is data, which a batch has no room for (and a read would lose).
    """
    if len(request.agent_ids) > MAX_BATCH_AGENTS:
        raise InvalidContext(f"a batch may have {MAX_BATCH_AGENTS} agents")
    if request.command_type in _WITH_DATA:
        raise InvalidContext(
            f"the results of a batch carry no data: {request.command_type.value} agents one by one"
        )
    batch = _Batch(request, registry, operations, timeout_secs, key)
    async with asyncio.TaskGroup() as group:
        for _ in range(min(_IN_FLIGHT, len(request.agent_ids))):
            group.create_task(batch.work())
    results = [result for result in batch.results if result is not None]
    successful = sum(result.success for result in results)
    return BatchControlResponse(
        request_id=request.request_id,
        success=successful == len(results),
        results=results,
        successful=successful,
        failed=len(results) - successful,
    )


class _Batch:
    """The agents still to do, for as many workers as may be in flight."""

    def __init__(
        self,
        request: BatchControlCommand,
        registry: Registry,
        operations: Operations,
        timeout_secs: float,
        key: str,
    ) -> None:
        self._request = request
        self._payload = request.payload  # decoded once, not for each agent
        self._key = key
        self._registry = registry
        self._operations = operations
        self._timeout_secs = timeout_secs
        self._deadline = asyncio.get_running_loop().time() + timeout_secs
        self._left = iter(enumerate(request.agent_ids))
        self._failed = False
        self.results: list[BatchAgentResult | None] = [None] * len(request.agent_ids)

    async def work(self) -> None:
        for position, agent_id in self._left:
            self.results[position] = await self._one(position, agent_id)

    async def _one(self, position: int, agent_id: UUID) -> BatchAgentResult:
        agent = self._registry.find(agent_id)
        try:
            if self._failed and self._request.fail_fast:
                raise InvalidState("not tried: the command failed for another agent (fail_fast)")
            agent = self._registry.get(agent_id)
            await self._run(agent, position)
        except Exception as error:
            self._failed = True
            return BatchAgentResult(
                agent_id=agent_id,
                success=False,
                status=None if agent is None else agent.status,
                error=words_of(as_agent_error(error), of_many=True),
            )
        return BatchAgentResult(agent_id=agent_id, success=True, status=agent.status)

    async def _run(self, agent: Agent, position: int) -> None:
        # An agent that is given twice gets the command twice.
        key = f"{self._key}/{position}" if self._key else ""
        try:
            async with asyncio.timeout_at(self._deadline) as limit:
                outcome = self._operations.run(
                    agent, self._request.command_type, self._payload, key
                )
                if type(outcome) is CoroutineType:
                    await outcome
        except TimeoutError:
            if not limit.expired():
                raise
            raise AgentTimeout(f"the batch took over {self._timeout_secs:g} s") from None
