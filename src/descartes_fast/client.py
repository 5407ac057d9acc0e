"""``ZmqClient``: a server's agents, over ZeroMQ, on asyncio."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace as with_changes
from enum import StrEnum
from signal import Signals
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import zmq

from ._core import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    BatchControlResponse,
    CommandResponse,
    ControlCommandType,
    HealthCheckResponse,
    LogStreamMessage,
    LogStreamType,
    OutputQueryResponse,
    PauseMode,
    StatusUpdate,
    ZmqOutputStream,
)
from .calls import checked_timeout
from .config import ZmqRunnerConfig
from .connection import Connection
from .counted_logs import CountedLogs
from .errors import (
    AgentError,
    NotFound,
    Unsupported,
    UsageError,
    WouldBlock,
)
from .feeds import Feeds
from .link import new_context
from .logs import LogFollower
from .requests import Requests
from .runner import AgentExit, AgentId, Progress, ZmqAgentRunner, agent_uuid, agent_uuids
from .spawning import spawn_all
from .status import PolledStatus, StatusSubscription
from .stdin_pieces import stdin_pieces
from .subscription import Subscription
from .waiting import wait_for_end

__all__ = ["AgentExit", "ZmqAgentRunner", "ZmqClient", "connect"]

E = TypeVar("E", bound=StrEnum)
S = TypeVar("S", StatusSubscription, PolledStatus, LogFollower, CountedLogs)


class ZmqClient:
    """A client of one server; implements ``ZmqAgentRunner``.

    Any number of calls may be in flight at once over its one connection. Works on any
    event loop that can watch sockets, belongs to the loop it was connected on, and is to be
    closed: with ``disconnect()``, or by using it as an ``async with``.

    Every method that asks the server raises the ``AgentError`` its refusal stands for,
    ``AgentTimeout`` if it does not answer in time, ``CommunicationError`` without a
    connection and ``ProtocolError`` if what it says is no answer; ``UsageError`` is for
    mistakes in the arguments. An agent is named by its ``UUID``, that as a string, or its
    ``AgentInfo``.
    """

    def __init__(self, config: ZmqRunnerConfig | None = None) -> None:
        self._config = config or ZmqRunnerConfig()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._connection: Connection | None = None
        self._operations: Requests | None = None
        self._feeds: Feeds | None = None
        self._subscriptions: set[Subscription[Any]] = set()

    async def __aenter__(self) -> Self:
        if self._connection is None:
            await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.disconnect()

    @property
    def config(self) -> ZmqRunnerConfig:
        """The configuration, with the endpoint last connected to."""
        return self._config

    @property
    def late_replies(self) -> int:
        """How many answers came when nobody waited for them any more."""
        return self._connection.late_replies if self._connection is not None else 0

    @property
    def broken_replies(self) -> int:
        """How many messages came that were no answers."""
        return self._connection.broken_replies if self._connection is not None else 0

    # The connection

    async def connect(self, endpoint: str | None = None) -> None:
        """Connect to a server and check who it is.

        ``endpoint`` is used in place of the configuration's. Connecting again to the same
        endpoint does nothing. Raises ``CommunicationError`` if no server answers within
        ``connection_timeout_secs`` or it is not the one of the configured ``server_id``,
        ``ProtocolError`` if its protocol version is unknown, ``UsageError`` if the client
        is connected to another endpoint.
        """
        config = self._config
        if endpoint is not None:
            config = with_changes(config, endpoint=endpoint)
        if self._connection is not None:
            if config.endpoint != self._config.endpoint:
                raise UsageError(f"the client is connected to {self._config.endpoint}")
            await self._connection.wait_ready()
            return
        self._config = config
        self._context = new_context(config.endpoint)
        self._feeds = feeds = Feeds(config, self._context)
        try:
            self._connection = Connection(
                config,
                self._context,
                on_ready=feeds.found,
                on_alive=feeds.alive,
                on_failed=feeds.failed,
            )
            self._operations = Requests(self._connection)
            await self._connection.wait_ready()
        except BaseException:
            await self.disconnect()
            raise

    async def disconnect(self) -> None:
        """Close the connection and every subscription; doing it twice is fine.

        Calls in flight raise ``CommunicationError``. The client can be connected again.
        """
        connection, self._connection = self._connection, None
        self._operations = None
        context, self._context = self._context, None
        feeds, self._feeds = self._feeds, None
        subscriptions, self._subscriptions = self._subscriptions, set()
        try:
            for subscription in subscriptions:
                await subscription.aclose()
        finally:
            if feeds is not None:
                await feeds.aclose()
            try:
                if connection is not None:
                    await connection.aclose()
            finally:
                if context is not None:
                    context.term()

    def is_connected(self) -> bool:
        """Return whether there is a connection now, as the socket's monitor saw it."""
        return self._connection is not None and self._connection.connected

    # Agents

    async def spawn_remote(
        self,
        config: AgentConfig,
        timeout_secs: float | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> AgentInfo:
        """Start an agent and return it once its process runs.

        ``timeout_secs`` bounds the spawn on the server too. Who repeats a spawn whose
        answer was lost gives the same ``request_id`` both times: a server that is
        idempotent then starts one agent. Raises ``SpawnFailed`` with the reason,
        ``ServerBusy`` at a limit.
        """
        return await self._requests().spawn(config, timeout_secs, metadata, request_id)

    async def spawn_many(
        self,
        configs: Iterable[AgentConfig],
        *,
        max_in_flight: int = 64,
        progress: Progress | None = None,
    ) -> list[AgentInfo | AgentError]:
        """Start many agents; return for each, in order, its info or why it failed.

        ``progress`` is called after each with how many are done and how many there are.
        """
        return await spawn_all(
            self.spawn_remote, configs, max_in_flight=max_in_flight, progress=progress
        )

    async def list_remote_agents(
        self, filter_status: AgentStatus | str | None = None, limit: int | None = None
    ) -> list[AgentInfo]:
        """Return the server's agents, those of one status or at most ``limit`` if asked."""
        status = None if filter_status is None else _word(AgentStatus, filter_status)
        return await self._requests().list(status, limit)

    async def get_remote_agent(self, agent_id: AgentId) -> AgentInfo | None:
        """Return an agent, or ``None`` if the server has none of that id."""
        requests, uuid = self._requests(), agent_uuid(agent_id)
        try:
            details = await requests.details(uuid, info=True)
        except NotFound:
            return None
        if details.info is not None:
            return details.info
        infos = await requests.list(None, None)
        return next((info for info in infos if info.id == uuid), None)

    async def get_agent_status(self, agent_id: AgentId) -> AgentStatus:
        """Return an agent's status."""
        return await self._requests().status(agent_uuid(agent_id))

    async def wait_agent(self, agent_id: AgentId, timeout_secs: float | None = None) -> AgentExit:
        """Wait until an agent has ended and return how.

        It has ended when its last byte of output is stored. Raises ``AgentTimeout`` if that
        takes longer than ``timeout_secs``; the agent runs on.
        """
        uuid = agent_uuid(agent_id)
        if timeout_secs is not None:
            checked_timeout(timeout_secs)
        requests = self._requests()
        profile = requests.profile
        feed = self._open_feeds().status(profile) if profile.snapshot else None
        return await wait_for_end(requests, feed, uuid, timeout_secs)

    # Control

    async def pause_agent(self, agent_id: AgentId, *, mode: PauseMode | str | None = None) -> None:
        """Pause an agent: by SIGSTOP (``forced``, the default), or as ``mode`` says."""
        payload = None if mode is None else {"mode": _word(PauseMode, mode).value}
        await self.control_agent(agent_id, ControlCommandType.PAUSE, payload)

    async def resume_agent(self, agent_id: AgentId) -> None:
        """Let a paused agent go on."""
        await self.control_agent(agent_id, ControlCommandType.RESUME)

    async def stop_agent(self, agent_id: AgentId, *, grace_secs: float | None = None) -> None:
        """Ask an agent to end, with all it has started, and make it end when its grace is over.

        Returns at once; ``wait_agent`` waits for the end.
        """
        payload = None if grace_secs is None else {"grace_secs": grace_secs}
        await self.control_agent(agent_id, ControlCommandType.STOP, payload)

    async def kill_agent(self, agent_id: AgentId) -> None:
        """End an agent and all it has started, at once."""
        await self.control_agent(agent_id, ControlCommandType.KILL)

    async def signal_agent(self, agent_id: AgentId, signal: Signals | str | int) -> None:
        """Send a signal (``"SIGINT"``, 2 or ``signal.SIGINT``) to an agent's process."""
        if isinstance(signal, bool) or not isinstance(signal, (str, int)):
            raise UsageError(f"not a signal: {signal!r}")
        word = signal.name if isinstance(signal, Signals) else signal
        await self.control_agent(agent_id, ControlCommandType.SIGNAL, {"signal": word})

    async def control_agent(
        self,
        agent_id: AgentId,
        command_type: ControlCommandType | str,
        payload: Any = None,
        timeout_secs: float | None = None,
        *,
        request_id: str | None = None,
    ) -> CommandResponse:
        """Send any command to an agent and return the server's consent, with its ``data``.

        ``request_id`` is for who repeats a command whose answer was lost, as in
        ``spawn_remote``.
        """
        command = _word(ControlCommandType, command_type)
        return await self._requests().control(
            agent_uuid(agent_id),
            command,
            payload,
            timeout_secs=timeout_secs,
            request_id=request_id,
        )

    async def batch_control(
        self,
        agent_ids: Iterable[AgentId],
        command_type: ControlCommandType | str,
        payload: Any = None,
        fail_fast: bool = False,
    ) -> BatchControlResponse:
        """Send one command to many agents; the answer holds each one's result.

        What fails for one agent is in its result and raises nothing; with ``fail_fast`` the
        server stops at the first failure.
        """
        uuids = agent_uuids(agent_ids)
        command = _word(ControlCommandType, command_type)
        return await self._requests().batch(uuids, command, payload, fail_fast)

    async def send_action_to_agent(
        self,
        agent_id: AgentId,
        action: str,
        params: Any = None,
        timeout_secs: float | None = None,
    ) -> CommandResponse:
        """Run a custom action; its result is the answer's ``data``."""
        return await self._requests().custom_action(
            agent_uuid(agent_id), action, params, timeout_secs
        )

    # Input and output

    async def write_agent_stdin(
        self, agent_id: AgentId, data: bytes, *, close: bool = False
    ) -> None:
        """Write bytes to an agent's stdin, and close it if asked.

        UTF-8 is written as a whole or not at all; other data goes in pieces of 64 KiB, each
        a write of its own, and ``WouldBlock.bytes_written`` tells how many bytes were
        written before one was refused. Raises ``WouldBlock`` if the agent does not read and
        the buffer before it has no room, ``InvalidState`` if its stdin is closed, and
        ``MessageTooLarge`` above the size of a message: write less at once, and wait for room.
        """
        uuid, pieces = agent_uuid(agent_id), stdin_pieces(data)
        written = 0
        for number, (piece, size) in enumerate(pieces, 1):
            payload: dict[str, Any] = {"data": piece}
            if close and number == len(pieces):
                payload["close"] = True
            try:
                await self.control_agent(uuid, ControlCommandType.WRITE_STDIN, payload)
            except WouldBlock as error:
                error.bytes_written = written
                raise
            written += size

    async def read_agent_stdout(
        self, agent_id: AgentId, *, max_bytes: int | None = None
    ) -> bytes | None:
        """Return output that nobody has read yet, or ``None`` if there is none.

        All readers share one cursor, which advances; ``stream_agent_logs`` follows the output
        without touching it.
        """
        return await self._requests().read_new(
            agent_uuid(agent_id), LogStreamType.STDOUT, max_bytes
        )

    async def read_agent_stderr(
        self, agent_id: AgentId, *, max_bytes: int | None = None
    ) -> bytes | None:
        """Return what nobody has read yet of stderr, or ``None`` if there is nothing."""
        return await self._requests().read_new(
            agent_uuid(agent_id), LogStreamType.STDERR, max_bytes
        )

    async def query_agent_output(
        self,
        agent_id: AgentId,
        stream: ZmqOutputStream | str,
        filter: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> OutputQueryResponse:
        """Return lines of an agent's output, those that match the regular expression ``filter``.

        ``limit`` lines at most, the first ``offset`` of them skipped; nothing is consumed.
        """
        return await self._requests().query(
            agent_uuid(agent_id), _word(ZmqOutputStream, stream), filter, limit, offset
        )

    # The server

    async def health_check(self) -> HealthCheckResponse:
        """Return the server's health.

        Raises ``ProtocolError`` for a protocol version that this client does not know and
        ``CommunicationError`` for another server than the configured ``server_id``.
        """
        return await self._requests().health()

    # Subscriptions

    async def subscribe_status_updates(
        self, agent_id: AgentId | None = None
    ) -> Subscription[StatusUpdate]:
        """Return how things are and then every change, of one agent or all.

        The first entries are a snapshot (``data["snapshot"]`` is true), one for each agent;
        a new one follows whenever updates may have been missed, as after a reconnect. An
        agent that the server then no longer knows is told as ``terminated``, with
        ``data["gone"]``. The subscription to one agent stops when that has ended. Where
        nothing is published to us, iterating raises ``CommunicationError``; iterating again
        goes on when that is over.
        """
        uuid = None if agent_id is None else agent_uuid(agent_id)
        requests = self._requests()
        profile = requests.profile
        if not profile.snapshot:
            return await self._started(PolledStatus(requests, uuid))
        feed = self._open_feeds().status(profile)
        return await self._started(StatusSubscription(requests, feed, uuid))

    async def stream_agent_logs(
        self, agent_id: AgentId | None = None, *, from_offset: int | None = None
    ) -> Subscription[LogStreamMessage]:
        """Return the output of one agent or all: each stream in order, no byte missing.

        ``from_offset`` is the byte at which each stream begins: 0 replays all there is;
        ``None`` begins with what is written from now on. Output that the server no longer
        has raises ``OutputGone`` while iterating; iterating again goes on behind it. The
        subscription to one agent stops after its last byte. Against a server without byte
        offsets (Rust's) messages may be missing, and are counted in ``dropped``.
        """
        uuid = None if agent_id is None else agent_uuid(agent_id)
        if from_offset is not None and (
            isinstance(from_offset, bool) or not isinstance(from_offset, int) or from_offset < 0
        ):
            raise UsageError(f"from_offset must be a number of bytes, not {from_offset!r}")
        requests = self._requests()
        profile, feeds = requests.profile, self._open_feeds()
        if profile.offsets:
            logs, status = feeds.logs(profile), feeds.status(profile)
            return await self._started(LogFollower(requests, logs, status, uuid, from_offset))
        if from_offset is not None:
            raise Unsupported("this server cannot replay output from an offset")
        return await self._started(CountedLogs(requests, feeds.logs(profile), uuid))

    # Within

    def _requests(self) -> Requests:
        if self._operations is None:
            raise UsageError("the client is not connected; call connect() first")
        return self._operations

    def _open_feeds(self) -> Feeds:
        assert self._feeds is not None  # there is a connection, and both come and go together
        return self._feeds

    async def _started(self, subscription: S) -> S:
        await subscription.start()
        self._subscriptions = {known for known in self._subscriptions if not known.finished}
        self._subscriptions.add(subscription)
        return subscription


if TYPE_CHECKING:  # mypy holds the client to the interface here
    _runner: type[ZmqAgentRunner] = ZmqClient


@contextlib.asynccontextmanager
async def connect(endpoint: str | None = None, **config: Any) -> AsyncIterator[ZmqClient]:
    """Connect to a server for the length of an ``async with``.

        async with descartes_fast.connect("tcp://127.0.0.1:5555") as client:
            agent = await client.spawn_remote(AgentConfig(model_backend="claude", task="..."))

    ``config`` are settings of ``ZmqRunnerConfig``; what is not given comes from the
    environment (``DESCARTES_FAST_*``), then the defaults. Raises as ``ZmqClient.connect``.
    """
    client = ZmqClient(ZmqRunnerConfig.load(endpoint=endpoint, **config))
    await client.connect()
    try:
        yield client
    finally:
        await client.disconnect()


def _word(kind: type[E], value: E | str) -> E:
    """Return an enum's member, given as itself or as its word. Raises ``UsageError``."""
    try:
        return kind(value)
    except ValueError:
        words = ", ".join(member.value for member in kind)
        raise UsageError(f"{value!r} is not one of: {words}") from None
