"""The server's end of the keeper: starts it, asks it, and hears from it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self
from uuid import UUID

from ..config import OutputPolicy, StdinPolicy
from ..errors import CommunicationError, ExecutionError, SpawnFailed, from_wire
from .keeper.protocol import VERSION, BrokenFrame, FrameReader, frame
from .keeper.trees import MARKER
from .keeper_process import KeeperProcess, KeeperWire, start_keeper

__all__ = ["Ended", "KeeperEvents", "KeeperLink", "Launch", "OutputGrew", "Started"]

_HELLO_SECS = 15.0
_END_SECS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A process to be started.

    ``argv`` and ``environment`` are passed as they are. ``stdin_data`` is written first
    and, with ``stdin`` "close-after-task", the only thing. Each output stream keeps
    ``output_limit_bytes`` in its file. ``limits`` are resource limits by their names in
    ``getrlimit(2)`` without ``RLIMIT_``, in lower case.
    """

    agent_id: UUID
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str | None = None
    stdin: StdinPolicy = "null"
    stdin_data: bytes = b""
    stdout_path: str
    stderr_path: str
    output_limit_bytes: int
    output_policy: OutputPolicy = "trim"
    limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process that runs. ``start_ticks`` tells it from a later one of the same pid."""

    pid: int
    started_at_ns: int
    start_ticks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputGrew:
    """How long an agent's streams are, and the first offset that each still has."""

    agent_id: UUID
    stdout_bytes: int
    stderr_bytes: int
    stdout_start: int
    stderr_start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end of an agent: how, and the final lengths of its streams.

    Either ``exit_code`` or ``signal`` is given. The times and the memory are those of the
    first process and of what it has waited for; on Linux the memory counts from the exec on,
    and what the keeper itself uses (16 MB) is the least it can say.
    """

    agent_id: UUID
    exit_code: int | None
    signal: int | None
    stdout_bytes: int
    stderr_bytes: int
    stdout_start: int
    stderr_start: int
    ended_at_ns: int
    user_secs: float
    system_secs: float
    max_rss_bytes: int


class KeeperEvents(Protocol):
    """What the keeper says unasked; called on the event loop, in order."""

    def output_grew(self, event: OutputGrew) -> None:
        """There is more output, at most every 2 ms for each agent."""

    def agent_ended(self, event: Ended) -> None:
        """An agent ended: once, and nothing of it follows."""

    def keeper_lost(self, reason: str) -> None:
        """The keeper is gone though nobody asked it to go; every call fails from now on."""


class KeeperLink:
    """A keeper process and the connection to it. Made by :meth:`open`, ended by :meth:`aclose`.

    Every call raises the error that the keeper's code stands for (``NotFound`` for an
    agent it does not know), and ``CommunicationError`` when the keeper is gone.
    """

    def __init__(
        self,
        process: KeeperProcess,
        connection: socket.socket,
        events: KeeperEvents,
        instance: str,
    ) -> None:
        self._process = process
        self._events = events
        self._instance = instance
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._wire = KeeperWire(connection, self._receive, self._lose)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self._greeted = False
        self._closing = False
        self._lost: str | None = None
        self._closed: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, runtime_dir: Path, events: KeeperEvents, *, agent_nofile: int | None = None
    ) -> Self:
        """Start a keeper with its socket and log in ``runtime_dir`` (made 0700) and connect.

        ``agent_nofile`` is how many descriptors an agent may have open where its backend does
        not say; ``None``: as many as this process.

        Raises ``UsageError`` if the directory's path is too long for a socket, and
        ``CommunicationError`` if the keeper does not start.
        """
        instance = secrets.token_hex(8)
        starting = asyncio.ensure_future(
            asyncio.to_thread(start_keeper, runtime_dir, instance, agent_nofile)
        )
        try:
            process, connection = await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(CommunicationError, OSError):
                process, connection = await starting
                connection.close()
                process.kill()
                await asyncio.to_thread(process.reap)
            raise
        link = cls(process, connection, events, instance)
        try:
            async with asyncio.timeout(_HELLO_SECS):
                await link._ask("hello", version=VERSION)
            link._greeted = True
        except BaseException as error:
            link._closing = True
            process.kill()
            await link.aclose()
            if isinstance(error, TimeoutError):
                raise CommunicationError("the keeper does not answer") from None
            raise
        return link

    @property
    def instance(self) -> str:
        """What the keeper's agents are marked with."""
        return self._instance

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return self._process.pid

    async def launch(self, launch: Launch) -> Started:
        """Start a process; return after its exec.

        A cancelled launch leaves no process: it is not started, or killed and forgotten.
        Raises ``SpawnFailed`` with the reason.
        """
        environment = {
            **launch.environment,
            MARKER: f"{self._instance}/{launch.agent_id}",
        }
        try:
            reply = await self._ask(
                "launch",
                launch.stdin_data,
                agent=str(launch.agent_id),
                argv=list(launch.argv),
                environment=environment,
                cwd=launch.cwd,
                stdin=launch.stdin,
                stdout_path=launch.stdout_path,
                stderr_path=launch.stderr_path,
                output_limit_bytes=launch.output_limit_bytes,
                output_policy=launch.output_policy,
                limits=dict(launch.limits),
            )
        except BrokenFrame:
            raise SpawnFailed("its arguments, environment and task are too long") from None
        except asyncio.CancelledError:
            self._post("abandon", agent=str(launch.agent_id))
            raise
        return Started(
            pid=reply["pid"],
            started_at_ns=reply["started_at_ns"],
            start_ticks=reply["start_ticks"],
        )

    async def write_stdin(
        self, agent_id: UUID, data: bytes, *, close: bool = False, key: str = ""
    ) -> int:
        """Write all of ``data`` to an agent's stdin, or nothing; return its length.

        ``close`` ends stdin after it. ``key`` stands for this write and no other: the keeper
        remembers the last 256 of each agent and answers a repeat without writing. Raises
        ``WouldBlock`` if the agent does not read and ``data`` does not fit into the 1 MiB
        before its pipe, and ``InvalidState`` if it has no stdin, or no longer.
        """
        reply = await self._ask("write", data, agent=str(agent_id), close=close, key=key)
        return int(reply["bytes"])

    async def signal(self, agent_id: UUID, signum: int, *, tree: bool = False) -> None:
        """Signal an agent's first process, or with ``tree`` its whole process group.

        Raises ``InvalidState`` if the agent has ended, ``InvalidContext`` for no such signal.
        """
        await self._ask("signal", agent=str(agent_id), signal=int(signum), tree=tree)

    async def stop(self, agent_id: UUID, grace_secs: float) -> None:
        """Send SIGTERM and SIGCONT to an agent's group, and SIGKILL to all after the grace.

        Returns once signalled; the keeper holds the timer. Raises ``InvalidState``.
        """
        await self._ask("stop", agent=str(agent_id), grace_secs=grace_secs)

    async def kill(self, agent_id: UUID) -> None:
        """Kill an agent and all that belongs to it. Raises ``InvalidState``."""
        await self._ask("kill", agent=str(agent_id))

    async def release(self, agent_id: UUID, stream: str, offset: int) -> None:
        """Let go of a stream's bytes before ``offset``: an agent that waits has room again."""
        self._post("release", agent=str(agent_id), stream=stream, offset=offset)
        await self._wire.drain()

    async def forget(self, agent_id: UUID, *, remove_output: bool = False) -> None:
        """Drop what the keeper knows of an agent that has ended, and perhaps its files.

        Raises ``InvalidState`` if it has not ended.
        """
        await self._ask("forget", agent=str(agent_id), remove=remove_output)

    async def set_total_limit(self, limit_bytes: int | None) -> None:
        """Limit what the streams of all agents that run keep together.

        Above it the largest streams are trimmed, and those that may not be trimmed wait.
        """
        await self._ask("limit_total", bytes=limit_bytes)

    async def ping(self) -> dict[str, object]:
        """Return the keeper's figures: ``version``, ``agents``, ``open_fds``, ..."""
        reply = await self._ask("ping")
        del reply["re"]
        return reply

    def give_up(self, reason: str) -> None:
        """Kill a keeper that is of no use any more; it counts as lost, and that is said."""
        if self._lost is None and not self._closing:
            self._process.kill()
            self._wire.close()
            self._lose(reason)

    async def aclose(self, *, grace_secs: float = 0.0) -> None:
        """End the keeper, which stops what is left, and reap it. Twice is fine."""
        if self._closed is None:
            self._closed = asyncio.create_task(self._close(grace_secs))
        await asyncio.shield(self._closed)

    async def _close(self, grace_secs: float) -> None:
        if self._lost is None and not self._closing:
            try:
                async with asyncio.timeout(grace_secs + _END_SECS):
                    await self._ask("end", grace_secs=grace_secs)
            except (CommunicationError, ExecutionError, TimeoutError):
                self._process.kill()
                self._events.keeper_lost("the keeper did not end in order")
        self._closing = True
        self._wire.close()
        await asyncio.to_thread(self._process.reap)

    async def _ask(self, operation: str, body: bytes = b"", **fields: Any) -> dict[str, Any]:
        """Send a request; return its reply, or raise what a refusal stands for."""
        if self._lost is not None or self._closing:
            raise CommunicationError(self._lost or "the keeper was closed")
        self._last_id += 1
        request_id = self._last_id
        data = frame({"op": operation, "id": request_id, **fields}, body)
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting[request_id] = future
        try:
            self._wire.write(data)
            reply = await future
        finally:
            self._waiting.pop(request_id, None)
        if "code" in reply:
            raise from_wire(f"{reply['code']}: {reply['words']}", agent_id=fields.get("agent"))
        return reply

    def _post(self, operation: str, **fields: Any) -> None:
        """Send a request that nobody waits for."""
        if self._lost is None and not self._closing:
            self._wire.write(frame({"op": operation, "id": 0, **fields}))

    def _receive(self, data: bytes) -> None:
        try:
            for header, _ in self._reader.feed(data):
                self._take(header)
        except BrokenFrame as error:
            self._wire.close()
            self._lose(f"the keeper's words cannot be read: {error}")

    def _take(self, header: dict[str, Any]) -> None:
        if "re" in header:
            future = self._waiting.get(header["re"])
            if future is not None and not future.done():
                future.set_result(header)
            return
        try:
            if header["event"] == "grew":
                self._events.output_grew(_output_grew(header))
            elif header["event"] == "ended":
                self._events.agent_ended(_ended(header))
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": "an event of the keeper was not handled", "exception": error}
            )

    def _lose(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(CommunicationError(reason))
        if self._greeted and not self._closing and self._closed is None:
            self._events.keeper_lost(reason)


def _output_grew(header: dict[str, Any]) -> OutputGrew:
    return OutputGrew(
        agent_id=UUID(header["agent"]),
        stdout_start=header["stdout"][0],
        stdout_bytes=header["stdout"][1],
        stderr_start=header["stderr"][0],
        stderr_bytes=header["stderr"][1],
    )


def _ended(header: dict[str, Any]) -> Ended:
    return Ended(
        agent_id=UUID(header["agent"]),
        exit_code=header["exit_code"],
        signal=header["signal"],
        stdout_start=header["stdout"][0],
        stdout_bytes=header["stdout"][1],
        stderr_start=header["stderr"][0],
        stderr_bytes=header["stderr"][1],
        ended_at_ns=header["ended_at_ns"],
        user_secs=header["user_secs"],
        system_secs=header["system_secs"],
        max_rss_bytes=header["max_rss_bytes"],
    )
