"""One control command for many agents, each with a result of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import CoroutineType

from .._core import (
    BatchAgentResult,
    BatchControlCommand,
    BatchControlResponse,
    ControlCommandType,
)
from ..errors import AgentError, AgentTimeout, InvalidContext, InvalidState
from .batch_replies import BatchReplies
from .operations import Operations
from .refusals import MAX_BATCH_AGENTS, as_agent_error, words_of
from .registry import Registry, not_found
from .together import Addressed, Command, Together

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
    replies: BatchReplies,
    timeout_secs: float,
    key: str,
) -> BatchControlResponse:
    """Return the results in the order in which the agents were given.

    What can be done for all of them in one step is; else at most 64 are in flight. With
    ``fail_fast`` nothing is begun after the first failure; the agents that it leaves out have
    a result that says so. Raises ``InvalidContext`` for too many agents and for commands
    whose answer is data, which a batch has no room for (and a read would lose).
    """
    addressed = Addressed(request, registry)
    if len(addressed) > MAX_BATCH_AGENTS:
        raise InvalidContext(f"a batch may have {MAX_BATCH_AGENTS} agents")
    if request.command_type in _WITH_DATA:
        raise InvalidContext(
            f"the results of a batch carry no data: {request.command_type.value} agents one by one"
        )
    batch = _Batch(request, addressed, replies, key)
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

    def __init__(
        self, request: BatchControlCommand, addressed: Addressed, replies: BatchReplies, key: str
    ) -> None:
        self._request = request
        self._replies = replies
        self._payload = request.payload  # decoded once, not for each agent
        self._addressed = addressed
        self._key = key
        self._errors: dict[int, AgentError] = {}
        self._undone: Iterable[int] = range(len(addressed))
        self._all_done: BatchControlResponse | None = None
        """What there is to answer if nothing fails."""

    async def run(self, operations: Operations, together: Together) -> None:
        """Do the command for all that are there, together or one by one."""
        in_one_step = None
        if not self._request.fail_fast:
            in_one_step = together.command(self._request.command_type, self._payload)
        if in_one_step is not None:
            await self._do_together(in_one_step)
        else:
            await self._do_one_by_one(operations)

    async def _do_together(self, in_one_step: Command) -> None:
        doing = in_one_step(self._addressed, self._key)
        try:  # while the keeper does it, on another core
            self._all_done = self._replies.all_went_well(self._request, self._addressed)
            changes = self._replies.changes
            self._errors = await doing
        finally:
            doing.close()
        if self._replies.changes != changes:  # while it was being done
            self._all_done = self._replies.all_went_well(self._request, self._addressed)
        self._undone = ()

    async def _do_one_by_one(self, operations: Operations) -> None:
        self._undone = undone = set(self._undone)
        left = iter(range(len(self._addressed)))

        async def work() -> None:
            for position in left:
                try:
                    await self._do(position, operations)
                except Exception as error:
                    self._errors[position] = as_agent_error(error)
                undone.discard(position)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_IN_FLIGHT, len(self._addressed))):
                group.create_task(work())

    def give_up(self, error: AgentError) -> None:
        """Say of all that is not done that it failed."""
        self._errors.update(dict.fromkeys(self._undone, error))

    def response(self) -> BatchControlResponse:
        """Return each agent's result, with the status that it has now."""
        if self._all_done is not None and not self._errors:
            return self._all_done
        errors = self._errors = self._missing() | self._errors
        results = [
            agent.granted()
            if agent is not None and (not errors or position not in errors)
            else self._failed(position)
            for position, agent in enumerate(self._addressed.agents)
        ]
        return BatchControlResponse(
            request_id=self._request.request_id,
            success=not errors,
            results=results,
            successful=len(results) - len(errors),
            failed=len(errors),
        )

    def _missing(self) -> dict[int, AgentError]:
        agents = enumerate(self._addressed.agents)
        agent_ids = self._request.agent_ids
        return {at: not_found(agent_ids[at]) for at, agent in agents if agent is None}

    def _failed(self, position: int) -> BatchAgentResult:
        agent = self._addressed.agents[position]
        return BatchAgentResult(
            agent_id=self._request.agent_ids[position],
            success=False,
            status=None if agent is None else agent.status,
            error=words_of(self._errors[position], of_many=True),
        )

    async def _do(self, position: int, operations: Operations) -> None:
        if self._errors and self._request.fail_fast:
            raise InvalidState("not tried: the command failed for another agent (fail_fast)")
        agent = self._addressed.found(position)
        # An agent that is given twice gets the command twice.
        key = f"{self._key}/{position}" if self._key else ""
        outcome = operations.run(agent, self._request.command_type, self._payload, key)
        if type(outcome) is CoroutineType:
            await outcome
