"""A spawn request becomes an agent: all of it, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from uuid import UUID

from .._core import AgentConfig, AgentStatus
from .._core.ids import new_id
from ..config import ZmqServerConfig
from ..errors import AgentError, AgentTimeout, CommunicationError, InvalidContext, ServerBusy
from .agent import Agent, AgentObserver
from .backends import Backends, LaunchPlan
from .health import Health
from .journal import NoJournal
from .journal_records import stored_config
from .keeper_link import KeeperLink, Launch
from .limits import Reserves
from .output import OutputFile
from .registry import Registry
from .state_dir import StateDir
from .tasks import Tasks

__all__ = ["Spawner"]

MAX_SPAWN_SECS = 3600.0
_CROWD = 16  # launches under way: the keeper has half as many milliseconds of work before it
MAX_NAME_CHARACTERS = 1024
MAX_METADATA_CHARACTERS = 16 * 1024  # of keys and values; an agent keeps them for its retention


class Spawner:
    """Starts agents, within the limits and reserves of the server.

    ``remove_output`` is given the id of an agent that did not come to be.
    """

    def __init__(
        self,
        config: ZmqServerConfig,
        backends: Backends,
        registry: Registry,
        keeper: KeeperLink,
        reserves: Reserves,
        health: Health,
        state_dir: StateDir,
        journal: NoJournal,
        observer: AgentObserver,
        background: Tasks,
        remove_output: Callable[[UUID], None],
    ) -> None:
        self._config = config
        self._backends = backends
        self._registry = registry
        self._keeper = keeper
        self._reserves = reserves
        self._health = health
        self._state_dir = state_dir
        self._journal = journal
        self._observer = observer
        self._background = background
        self._remove_output = remove_output
        self._launching = 0

    async def spawn(
        self,
        config: AgentConfig,
        timeout_secs: float | None,
        metadata: Mapping[str, str] | None,
        request_key: str,
    ) -> Agent:
        """Return the running agent, once its program has been executed.

        That it is to be started for this request is in the journal before it is: whatever happens
        here, it is known to a later server, and started once.

        Raises ``ServerBusy`` below a reserve or at the limit, ``SpawnFailed`` with the reason,
        ``AgentTimeout`` after ``timeout_secs``, ``InvalidContext`` for a name or metadata that
        are too long, and what the backend refuses. In all of these cases nothing of the agent
        is left. ``ExecutionError`` if the keeper was lost and nobody knows whether the program
        ran: then the agent is listed as one that failed.
        """
        _check_lengths(config.name, metadata or {})
        shortage = self._health.lost or self._reserves.shortage()
        if shortage is not None:
            raise ServerBusy(shortage)
        agent_id = new_id()
        plan = self._backends.plan(config, agent_id, metadata)
        directory = self._state_dir.agent_directory(agent_id)
        agent = Agent(
            agent_id,
            config,
            plan,
            metadata=metadata,
            stdout=OutputFile(f"{directory}/stdout"),
            stderr=OutputFile(f"{directory}/stderr"),
            observer=self._observer,
            output_limit_bytes=self._config.output_limit_bytes,
            output_policy=self._config.output_policy,
            request_key=request_key,
            stored_config=self._stored_config(config),
        )
        self._registry.add(agent)
        self._journal.spawning += 1
        secs = self._config.request_timeout_secs if timeout_secs is None else timeout_secs
        try:
            agent.accepted()
            async with asyncio.timeout(min(secs, MAX_SPAWN_SECS)):
                if self._journal.keeps:
                    await self._journal.committed(at_once=self._journal.spawning == 1)
                await self._start(agent, plan)
        except AgentError as error:
            if agent.has_ended:
                raise
            self._give_up(agent, str(error))
            self._remove_output(agent.id)
            raise
        except BaseException as error:
            # The keeper may be starting it at this moment; it kills what is cancelled.
            self._give_up(agent, "the spawn was given up before the program was running")
            self._background.start(self._remove_abandoned(agent.id))
            if isinstance(error, TimeoutError):
                raise AgentTimeout(f"the program was not running after {secs:g} s") from None
            raise
        finally:
            self._journal.spawning -= 1
        return agent

    async def _start(self, agent: Agent, plan: LaunchPlan) -> None:
        """Have the program executed; if the keeper is lost meanwhile the next one finds out."""
        try:
            self._count_launches(1)
            try:
                started = await self._keeper.launch(self._launch(agent, plan))
            finally:
                self._count_launches(-1)
            agent.started(started)
        except CommunicationError as error:
            await self._keeper.until_back()
            agent.require_known_start()
            if agent.status is not AgentStatus.INITIALIZING:
                return
            if self._keeper.is_over:
                raise
            raise ServerBusy(f"the keeper was lost before it started the agent: {error}") from None

    def _count_launches(self, more: int) -> None:
        self._launching += more
        self._journal.is_crowded = self._launching >= _CROWD

    def _launch(self, agent: Agent, plan: LaunchPlan) -> Launch:
        # Without a reserve it is for the new directory to show that the disk is full.
        spare = self._state_dir.spare_directory() if self._config.disk_reserve_bytes else None
        return Launch(
            agent_id=agent.id,
            argv=plan.argv,
            environment=plan.environment,
            cwd=plan.cwd,
            stdin=plan.stdin,
            stdin_data=plan.stdin_data,
            stdout_path=agent.stdout.path,
            stderr_path=agent.stderr.path,
            output_limit_bytes=self._config.output_limit_bytes,
            output_policy=self._config.output_policy,
            limits=plan.limits,
            spare_directory=spare,
        )

    def _stored_config(self, config: AgentConfig) -> bytes:
        if not self._journal.keeps:
            return b""
        return stored_config(config, with_environment=self._config.journal_environment)

    def _give_up(self, agent: Agent, reason: str) -> None:
        if not agent.has_ended:
            agent.start_failed(reason)
        self._registry.discard(agent)
        self._journal.remove_agent(agent.id)

    async def _remove_abandoned(self, agent_id: UUID) -> None:
        """Remove the output of an agent whose launch was cancelled, and which the keeper ends."""
        with contextlib.suppress(AgentError):
            await self._keeper.abandon(agent_id)
        self._remove_output(agent_id)


def _check_lengths(name: str, metadata: Mapping[str, str]) -> None:
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidContext(f"an agent's name may have {MAX_NAME_CHARACTERS} characters")
    if sum(len(key) + len(value) for key, value in metadata.items()) > MAX_METADATA_CHARACTERS:
        raise InvalidContext(f"metadata may have {MAX_METADATA_CHARACTERS} characters in all")
