"""``ZmqAgentRunner``: what a client of a server can do, whoever implements it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from signal import Signals
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable
from uuid import UUID

from ._core import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    BatchControlResponse,
    CommandResponse,
    ControlCommandType,
    HealthCheckResponse,
    LogStreamMessage,
    OutputQueryResponse,
    PauseMode,
    StatusUpdate,
    ZmqOutputStream,
)
from .errors import AgentError, UsageError
from .subscription import Subscription

__all__ = ["AgentExit", "AgentId", "Progress", "ZmqAgentRunner", "agent_uuid", "agent_uuids"]

AgentId: TypeAlias = UUID | str | AgentInfo
"""How an agent is named: its id, the id as text, or what the server said about it."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


@dataclass(frozen=True, slots=True)
class AgentExit:
    """How an agent ended.

    ``exit_code`` is what its process returned, or ``None`` if ``signal`` ended it (or
    nothing is known). ``info`` is the agent as the server last knew it, or ``None`` if the
    server no longer does.
    """

    id: UUID
    status: AgentStatus
    exit_code: int | None
    signal: int | None
    info: AgentInfo | None


def agent_uuid(agent_id: AgentId) -> UUID:
    """Return the id that names an agent. Raises ``UsageError`` if it names none."""
    if isinstance(agent_id, UUID):
        return agent_id
    if isinstance(agent_id, AgentInfo):
        return agent_id.id
    if isinstance(agent_id, str):
        try:
            return UUID(agent_id)
        except ValueError:
            pass
    raise UsageError(f"not an agent's id: {agent_id!r}")


def agent_uuids(agent_ids: Iterable[AgentId]) -> list[UUID]:
    """Return the ids that name agents. Raises ``UsageError`` for the first that names none."""
    given = list(agent_ids)
    if set(map(type, given)) == {UUID}:  # a thousand of them, told by C alone
        return cast(list[UUID], given)
    return [agent_uuid(agent_id) for agent_id in given]


@runtime_checkable
class ZmqAgentRunner(Protocol):
    """Spawns, watches and controls agents on a server.

    A refusal by the server raises the ``AgentError`` that its code stands for; no answer is
    ``AgentTimeout`` or ``CommunicationError``; a mistake in the arguments is ``UsageError``.
    """

    async def connect(self, endpoint: str | None = None) -> None:
        """Connect to a server and check who it is."""

    async def disconnect(self) -> None:
        """Close the connection and every subscription; doing it twice is fine."""

    def is_connected(self) -> bool:
        """Return whether there is a connection now."""

    async def spawn_remote(
        self,
        config: AgentConfig,
        timeout_secs: float | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> AgentInfo:
        """Start an agent and return it once its process runs."""

    async def list_remote_agents(
        self, filter_status: AgentStatus | str | None = None, limit: int | None = None
    ) -> list[AgentInfo]:
        """Return the server's agents."""

    async def get_remote_agent(self, agent_id: AgentId) -> AgentInfo | None:
        """Return an agent, or ``None`` if the server has none of that id."""

    async def get_agent_status(self, agent_id: AgentId) -> AgentStatus:
        """Return an agent's status."""

    async def pause_agent(self, agent_id: AgentId, *, mode: PauseMode | str | None = None) -> None:
        """Pause an agent."""

    async def resume_agent(self, agent_id: AgentId) -> None:
        """Let a paused agent go on."""

    async def stop_agent(self, agent_id: AgentId, *, grace_secs: float | None = None) -> None:
        """Ask an agent to end, and make it end when its grace is over."""

    async def kill_agent(self, agent_id: AgentId) -> None:
        """End an agent at once."""

    async def write_agent_stdin(
        self, agent_id: AgentId, data: bytes, *, close: bool = False
    ) -> None:
        """Write to an agent's stdin, and close it if asked."""

    async def read_agent_stdout(
        self, agent_id: AgentId, *, max_bytes: int | None = None
    ) -> bytes | None:
        """Return new output, or ``None`` if there is none."""

    async def read_agent_stderr(
        self, agent_id: AgentId, *, max_bytes: int | None = None
    ) -> bytes | None:
        """Return new output on stderr, or ``None`` if there is none."""

    async def health_check(self) -> HealthCheckResponse:
        """Return the server's health."""

    async def subscribe_status_updates(
        self, agent_id: AgentId | None = None
    ) -> Subscription[StatusUpdate]:
        """Return the changes of status of one agent or all, beginning with how things are."""

    async def send_action_to_agent(
        self,
        agent_id: AgentId,
        action: str,
        params: Any = None,
        timeout_secs: float | None = None,
    ) -> CommandResponse:
        """Run a custom action."""

    async def query_agent_output(
        self,
        agent_id: AgentId,
        stream: ZmqOutputStream | str,
        filter: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> OutputQueryResponse:
        """Return lines of an agent's output."""

    async def batch_control(
        self,
        agent_ids: Iterable[AgentId],
        command_type: ControlCommandType | str,
        payload: Any = None,
        fail_fast: bool = False,
    ) -> BatchControlResponse:
        """Send one command to many agents."""

    async def stream_agent_logs(
        self, agent_id: AgentId | None = None, *, from_offset: int | None = None
    ) -> Subscription[LogStreamMessage]:
        """Return the output of one agent or all, as it comes."""

    async def wait_agent(self, agent_id: AgentId, timeout_secs: float | None = None) -> AgentExit:
        """Wait until an agent has ended and return how."""

    async def signal_agent(self, agent_id: AgentId, signal: Signals | str | int) -> None:
        """Send a signal to an agent's process."""

    async def spawn_many(
        self,
        configs: Iterable[AgentConfig],
        *,
        max_in_flight: int = 64,
        progress: Progress | None = None,
    ) -> list[AgentInfo | AgentError]:
        """Start many agents; for each its info or why it could not be started, in order."""
