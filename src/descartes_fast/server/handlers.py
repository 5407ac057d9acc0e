"""The requests of a server, each with what it does and the response to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any

from .._core import (
    ZMQ_PROTOCOL_VERSION,
    BatchControlCommand,
    CommandResponse,
    ControlCommand,
    ControlCommandType,
    CustomActionRequest,
    HealthCheckRequest,
    HealthCheckResponse,
    ListAgentsRequest,
    ListAgentsResponse,
    OutputQueryRequest,
    OutputQueryResponse,
    SpawnRequest,
    SpawnResponse,
    ZmqMessage,
)
from .._core import replace as replaced
from ..errors import AgentTimeout, ShuttingDown
from .actions import Actions
from .agent import Agent
from .batch import run_batch
from .batch_replies import BatchReplies
from .health import Health
from .identity import ServerIdentity
from .operations import Operations
from .queries import Queries
from .registry import Registry
from .spawner import Spawner
from .statistics import Counters
from .together import Together

__all__ = ["Handler", "Handlers"]

_LISTED_TASK_CHARACTERS = 1000
_LONGEST_LISTING_CHARACTERS = 2 * 1024 * 1024  # of four bytes each: within a message's 10 MiB

Handler = Callable[[Any, str], Any]
"""Carries a request out, given it and its key (empty where it has none).

Returns the response, or a coroutine that does. Raises ``AgentError``.
"""


class Handlers:
    """Carries out all that a server can be asked."""

    def __init__(
        self,
        *,
        identity: ServerIdentity,
        registry: Registry,
        spawner: Spawner,
        operations: Operations,
        together: Together,
        actions: Actions,
        queries: Queries,
        health: Health,
        counters: Counters,
        request_timeout_secs: float,
    ) -> None:
        self.accepting = True
        """Whether new work is taken; what is asked about the work there is is answered anyway."""
        self._identity = identity
        self._registry = registry
        self._spawner = spawner
        self._operations = operations
        self._together = together
        self._batch_replies = BatchReplies()
        self._actions = actions
        self._queries = queries
        self._health = health
        self._counters = counters
        self._request_timeout_secs = request_timeout_secs
        self._handlers: dict[type[Any], Handler] = {
            SpawnRequest: self._spawn,
            ControlCommand: self._control,
            ListAgentsRequest: self._list,
            HealthCheckRequest: self._check_health,
            CustomActionRequest: self._act,
            BatchControlCommand: self._batch,
            OutputQueryRequest: self._query,
        }

    def of(self, message: ZmqMessage) -> Handler | None:
        """Return what carries a request out; ``None`` for a message that is none."""
        handler = self._handlers.get(type(message))
        if handler is None:  # the core has a subclass for messages with a long text
            kinds = self._handlers.items()
            handler = next((each for kind, each in kinds if isinstance(message, kind)), None)
        return handler

    async def _spawn(self, request: SpawnRequest, key: str) -> SpawnResponse:
        try:
            agent = self._registry.spawned_by(key)
            if agent is not None:
                agent.require_known_start()
                self._counters.replayed += 1
            else:
                self._require_accepting()
                agent = await self._spawner.spawn(
                    request.config, request.timeout_secs, request.metadata, key
                )
                self._counters.spawns += 1
        except BaseException:
            self._counters.spawn_failures += 1
            raise
        return SpawnResponse(
            request_id=request.request_id,
            success=True,
            agent_info=agent.info(),
            server_id=self._identity.server_id,
        )

    def _control(
        self, request: ControlCommand, key: str
    ) -> CommandResponse | Coroutine[Any, Any, CommandResponse]:
        self._counters.commands += 1
        agent = self._registry.get(request.agent_id)
        command = request.command_type
        if command is ControlCommandType.CUSTOM_ACTION:
            self._require_accepting()
        outcome = self._operations.run(agent, command, request.payload, key)
        if type(outcome) is CoroutineType:
            if command is not ControlCommandType.CUSTOM_ACTION:  # has a timeout of its own
                outcome = self._in_time(outcome, command.value)
            return _command_response_later(request.request_id, agent, outcome)
        return _command_response(request.request_id, agent, outcome)

    def _list(self, request: ListAgentsRequest, _: str) -> ListAgentsResponse:
        self._counters.lists += 1
        agents = self._registry.listed(request.filter_status, request.limit)
        infos = [agent.info() for agent in agents]
        if sum(len(info.task) for info in infos) > _LONGEST_LISTING_CHARACTERS:
            infos = [
                info
                if len(info.task) <= _LISTED_TASK_CHARACTERS
                else replaced(info, task=info.task[:_LISTED_TASK_CHARACTERS] + "...")
                for info in infos
            ]
        return ListAgentsResponse(request_id=request.request_id, success=True, agents=infos)

    def _check_health(
        self, request: HealthCheckRequest, _: str
    ) -> HealthCheckResponse | Coroutine[Any, Any, HealthCheckResponse]:
        self._counters.health_checks += 1
        if self._health.fresh:
            return self._health_response(request.request_id, self._health.reason())
        return self._ask_health(request.request_id)

    async def _ask_health(self, request_id: str) -> HealthCheckResponse:
        return self._health_response(request_id, await self._health.ask())

    def _health_response(self, request_id: str, reason: str | None) -> HealthCheckResponse:
        metadata = self._identity.metadata()
        if reason is not None:
            metadata["reason"] = reason
        return HealthCheckResponse(
            request_id=request_id,
            healthy=reason is None,
            protocol_version=ZMQ_PROTOCOL_VERSION,
            uptime_secs=self._identity.uptime_secs,
            active_agents=self._registry.alive_count,
            metadata=metadata,
        )

    async def _act(self, request: CustomActionRequest, _: str) -> CommandResponse:
        self._counters.actions += 1
        self._require_accepting()
        agent = self._registry.get(request.agent_id)
        data = await self._actions.run(agent, request.action, request.params, request.timeout_secs)
        return _command_response(request.request_id, agent, data)

    def _batch(self, request: BatchControlCommand, key: str) -> Any:
        self._counters.batches += 1
        if request.command_type is ControlCommandType.CUSTOM_ACTION:
            self._require_accepting()
        return run_batch(
            request,
            self._registry,
            self._operations,
            self._together,
            self._batch_replies,
            self._request_timeout_secs,
            key,
        )

    async def _query(self, request: OutputQueryRequest, _: str) -> OutputQueryResponse:
        self._counters.queries += 1
        agent = self._registry.get(request.agent_id)
        found = await self._in_time(
            self._queries.query(
                agent, request.stream, request.filter, request.limit, request.offset
            ),
            "the query",
        )
        return OutputQueryResponse(
            request_id=request.request_id,
            agent_id=agent.id,
            success=True,
            lines=found.lines,
            total_lines=found.total,
            has_more=found.has_more,
        )

    async def _in_time(self, outcome: Coroutine[Any, Any, Any], what: str) -> Any:
        try:
            async with asyncio.timeout(self._request_timeout_secs) as limit:
                return await outcome
        except TimeoutError:
            if not limit.expired():  # another limit, which has words of its own
                raise
            raise AgentTimeout(f"{what} took over {self._request_timeout_secs:g} s") from None

    def _require_accepting(self) -> None:
        if not self.accepting:
            raise ShuttingDown("the server is shutting down and takes no new work")


def _command_response(request_id: str, agent: Agent, data: Any) -> CommandResponse:
    return CommandResponse(
        request_id=request_id, agent_id=agent.id, success=True, status=agent.status, data=data
    )


async def _command_response_later(
    request_id: str, agent: Agent, outcome: Coroutine[Any, Any, Any]
) -> CommandResponse:
    return _command_response(request_id, agent, await outcome)
