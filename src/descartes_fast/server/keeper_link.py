"""The server's end of the keeper: finds or starts it, asks it, hears from it, replaces it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from .._core.ids import id_of, id_text
from ..errors import (
    AgentError,
    CommunicationError,
    ExecutionError,
    ServerBusy,
    SpawnFailed,
    from_wire,
)
from .keeper.passing import MAX_DESCRIPTORS, close_all
from .keeper.protocol import BrokenFrame, id_at
from .keeper.trees import MARKER
from .keeper_connection import KeeperConnection, TakeDescriptors
from .keeper_joining import Wanted, join_keeper
from .keeper_messages import (
    Adoption,
    Ended,
    KeeperEvents,
    KnownAgent,
    Launch,
    OutputGrew,
    Started,
    ended_of,
    known_agent_of,
    output_grew_of,
)
from .keeper_process import KeeperPlace, KeeperProcess
from .pipe_ends import DESCRIPTORS_PER_AGENT, PipeEnds

__all__ = ["Ended", "KeeperEvents", "KeeperLink", "Launch", "OutputGrew", "Started"]

_END_SECS = 15.0
_DUPLICATES_AT_ONCE = MAX_DESCRIPTORS // DESCRIPTORS_PER_AGENT  # agents, in one message


class KeeperLink:
    """The keeper of a state directory and the connection to it. Made by :meth:`open`.

    Every call raises the error that the keeper's code stands for (``NotFound`` for an
    agent it does not know), and ``CommunicationError`` when the keeper is gone. While a lost
    keeper is being replaced launches are refused and other calls wait.
    """

    def __init__(self, place: KeeperPlace, events: KeeperEvents, wanted: Wanted) -> None:
        self.lost: str | None = None
        """Why there is no keeper at the moment, or any more."""
        self.is_new = False
        """Whether this link has started the keeper, so that it knows no agent of earlier ones."""
        self._place = place
        self._events = events
        self._wanted = wanted
        self._ends = PipeEnds()
        self._total_limit_bytes: int | None = None
        self._process: KeeperProcess
        self._connection: KeeperConnection
        self._usable = asyncio.Event()
        self._over = False
        self._detached = False
        self._closed: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        runtime_dir: Path,
        events: KeeperEvents,
        *,
        instance: str | None = None,
        keep: bool = False,
        agent_nofile: int | None = None,
    ) -> Self:
        """Connect to the keeper in ``runtime_dir`` (made 0700), started if there is none.

        ``instance`` is what its agents are marked with; if it is not given a keeper that is there
        may have any, and a new one gets one made up. With ``keep`` the keeper and the agents
        outlive the connection, else they end with it. ``agent_nofile`` is how
        many descriptors an agent may have open where its backend does not say; ``None``: as many as
        this process. A keeper of another build replaces its program in place; one that does not
        answer is killed and counts as lost.

        Raises ``UsageError`` if the directory's path is too long for a socket, or the keeper there
        has agents of another instance, and ``CommunicationError`` if there is no keeper to be had.
        """
        place = KeeperPlace(runtime_dir, agent_nofile)
        link = cls(place, events, Wanted(instance=instance, keep=keep))
        try:
            await link._join()
        except BaseException:
            link._ends.close()
            raise
        link._usable.set()
        return link

    # -- what it is ------------------------------------------------------------------

    @property
    def instance(self) -> str:
        """What the keeper's agents are marked with."""
        assert self._wanted.instance is not None
        return self._wanted.instance

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return self._process.pid

    @property
    def is_over(self) -> bool:
        """Whether the keeper is gone for good, or being ended."""
        return self._over

    # -- operations on agents --------------------------------------------------------

    async def launch(self, launch: Launch) -> Started:
        """Start a process; return after its exec.

        A cancelled launch leaves no process: it is not started, or killed and forgotten.
        Raises ``SpawnFailed`` with the reason, ``ServerBusy`` if there is no keeper at the moment,
        and ``CommunicationError`` if it is lost meanwhile: nobody knows then whether it was done.
        """
        if self.lost is not None and not self._over:
            raise ServerBusy(f"the keeper is being replaced: {self.lost}")
        connection = self._connection
        agent_text = id_text(launch.agent_id)
        try:
            reply = await connection.ask(
                "launch",
                launch.stdin_data,
                take=lambda header, found: self._take_started(launch, header["fds"], found),
                agent=agent_text,
                argv=list(launch.argv),
                environment=_in_one(
                    {**launch.environment, MARKER: f"{self.instance}/{agent_text}"}
                ),
                cwd=launch.cwd,
                stdin=launch.stdin,
                stdout_path=launch.stdout_path,
                stderr_path=launch.stderr_path,
                output_limit_bytes=launch.output_limit_bytes,
                output_policy=launch.output_policy,
                limits=dict(launch.limits),
                spare_directory=launch.spare_directory,
            )
        except BrokenFrame:
            raise SpawnFailed("its arguments, environment and task are too long") from None
        except asyncio.CancelledError:
            connection.post("abandon", agent=agent_text)
            self._ends.drop(launch.agent_id)
            raise
        return Started(
            pid=reply["pid"],
            started_at_ns=reply["started_at_ns"],
            start_ticks=reply["start_ticks"],
        )

    async def abandon(self, agent_id: UUID) -> None:
        """Have an agent killed and forgotten with its output; its launch is over then."""
        await self._connection.ask("abandon", agent=id_text(agent_id))

    async def write_stdin(
        self, agent_id: UUID, data: bytes, *, close: bool = False, key: str = ""
    ) -> int:
        """Write all of ``data`` to an agent's stdin, or nothing; return its length.

        ``close`` ends stdin after it. Raises ``WouldBlock`` if the agent does not read and ``data``
        does not fit into the 1 MiB before its pipe, and ``InvalidState`` if it has no stdin, or no
        longer. ``key``, here and below, stands for this call and no other: the keeper remembers it
        for ten minutes and answers a repeat without doing it again.
        """
        try:
            reply = await self._ask(
                "write",
                data,
                take=lambda header, found: self._ends.add(agent_id, header["fds"], found),
                agent=id_text(agent_id),
                close=close,
                key=key,
            )
        except asyncio.CancelledError:
            self._ends.miss(agent_id)  # its reply may bring the backlog, and nobody takes it
            raise
        if close and "stdin" in self._ends.of(agent_id):  # else it has ended: the event came first
            self._ends.will_close_stdin(agent_id)
        return int(reply["bytes"])

    async def signal(
        self, agent_id: UUID, signum: int, *, tree: bool = False, key: str = ""
    ) -> None:
        """Signal an agent's first process, or with ``tree`` its whole process group.

        Raises ``InvalidState`` if the agent has ended, ``InvalidContext`` for no such signal.
        """
        await self._ask("signal", agent=id_text(agent_id), signal=int(signum), tree=tree, key=key)

    def signal_many(
        self, agent_ids: bytes, signum: int, *, key: str = ""
    ) -> Coroutine[Any, Any, dict[int, AgentError]]:
        """Signal the first processes of agents; to be awaited: why some were not, by position.

        ``agent_ids`` has 16 bytes for each. The keeper is asked at once, unless there is none at
        the moment.
        """
        answer = self._ask("signal_many", agent_ids, signal=int(signum), key=key)
        return self._refused(answer, agent_ids)

    async def _refused(
        self, answer: Awaitable[dict[str, Any]], agent_ids: bytes
    ) -> dict[int, AgentError]:
        reply = await answer
        return {
            position: from_wire(f"{code}: {words}", agent_id=id_at(agent_ids, position))
            for position, code, words in reply["refused"]
        }

    async def stop(self, agent_id: UUID, grace_secs: float, *, key: str = "") -> None:
        """Send SIGTERM and SIGCONT to an agent's group, and SIGKILL to all after the grace.

        Returns once signalled; the keeper holds the timer. Raises ``InvalidState``.
        """
        await self._ask("stop", agent=id_text(agent_id), grace_secs=grace_secs, key=key)

    async def kill(self, agent_id: UUID, *, key: str = "") -> None:
        """Kill an agent and all that belongs to it. Raises ``InvalidState``."""
        await self._ask("kill", agent=id_text(agent_id), key=key)

    async def release(self, agent_id: UUID, stream: str, offset: int) -> None:
        """Let go of a stream's bytes before ``offset``: an agent that waits has room again.

        While there is no keeper nothing is said: whoever takes the agents over says it again.
        """
        self._connection.post("release", agent=id_text(agent_id), stream=stream, offset=offset)
        await self._connection.drain()

    async def forget(self, agent_id: UUID, *, remove_output: bool = False) -> None:
        """Drop what the keeper knows of an agent that has ended, and perhaps its files.

        Raises ``InvalidState`` if it has not ended.
        """
        await self._ask("forget", agent=id_text(agent_id), remove=remove_output)

    def forget_ended(self, agent_ids: Iterable[UUID]) -> None:
        """Let the keeper drop what it knows of agents whose ends are stored.

        While there is no keeper nothing is said: whoever takes the agents over says it again.
        """
        self._connection.post("forget_ended", agents=list(map(id_text, agent_ids)))

    async def set_total_limit(self, limit_bytes: int | None) -> None:
        """Limit what the streams of all agents that run keep together.

        Above it the largest streams are trimmed, and those that may not be trimmed wait.
        """
        self._total_limit_bytes = limit_bytes
        await self._ask("limit_total", bytes=limit_bytes)

    async def ping(self) -> dict[str, object]:
        """Return the keeper's figures: ``version``, ``agents``, ``open_fds``, ..."""
        reply = await self._connection.ask("ping")
        del reply["re"]
        return reply

    # -- what a keeper has from before -----------------------------------------------

    async def known_agents(self) -> list[KnownAgent]:
        """Return all agents that the keeper has, those that have ended among them."""
        return await self._list(self._connection)

    async def _list(self, connection: KeeperConnection) -> list[KnownAgent]:
        reply = await connection.ask("list")
        known = [known_agent_of(entry) for entry in reply["agents"]]
        for agent in known:
            if agent.stdin == "closing":
                self._ends.will_close_stdin(agent.agent_id)
            elif agent.stdin == "closed":
                self._ends.close_stdin(agent.agent_id)
        return known

    async def hold_ends(self, agent_ids: Iterable[UUID]) -> None:
        """Ask for duplicates of the keeper's ends of these agents' pipes."""
        await self._hold(self._connection, list(agent_ids))

    async def _hold(self, connection: KeeperConnection, wanted: list[UUID]) -> None:
        for first in range(0, len(wanted), _DUPLICATES_AT_ONCE):
            some = wanted[first : first + _DUPLICATES_AT_ONCE]
            await connection.ask(
                "duplicates", take=self._take_duplicates, agents=[id_text(one) for one in some]
            )

    async def _hold_all(self, connection: KeeperConnection) -> list[KnownAgent]:
        known = await self._list(connection)
        await self._hold(connection, [agent.agent_id for agent in known if agent.ended is None])
        return known

    async def hold_missing_ends(self) -> None:
        """Ask again for those that were lost, as no descriptor was free."""
        await self._usable.wait()
        if missing := self._ends.missing:
            await self.hold_ends(missing)

    def let_go(self, agent_id: UUID) -> None:
        """Close the duplicates of an agent that has ended; by itself when the keeper says so."""
        self._ends.drop(agent_id)

    async def adopt(self, adoption: Adoption) -> OutputGrew:
        """Let the keeper take over an agent of the one before, with what is held of it here."""
        held = self._ends.of(adoption.agent_id)
        reply = await self._connection.ask(
            "adopt",
            descriptors=list(held.values()),
            agent=id_text(adoption.agent_id),
            pid=adoption.pid,
            start_ticks=adoption.start_ticks,
            started_at_ns=adoption.started_at_ns,
            stdout_path=adoption.stdout_path,
            stderr_path=adoption.stderr_path,
            output_limit_bytes=adoption.output_limit_bytes,
            output_policy=adoption.output_policy,
            closing=self._ends.is_closing_stdin(adoption.agent_id),
            fds=list(held),
        )
        return output_grew_of(reply, agent_id=adoption.agent_id)

    async def stop_again(self, agent_id: UUID, grace_secs: float) -> None:
        """Stop an agent that was to be stopped by the keeper before."""
        await self._connection.ask("stop", agent=id_text(agent_id), grace_secs=grace_secs, key="")

    async def pause_again(self, agent_id: UUID) -> None:
        """Send SIGSTOP to an agent whose pause was begun before."""
        await self._connection.ask(
            "signal", agent=id_text(agent_id), signal=int(signal.SIGSTOP), tree=True, key=""
        )

    async def drop_known(self, agent_id: UUID, *, wanted: bool) -> None:
        """Have an agent forgotten that has ended; one that is not ``wanted`` is killed before,
        and its output is removed."""
        self._ends.drop(agent_id)
        if wanted:
            await self._connection.ask("forget", agent=id_text(agent_id), remove=False)
        else:
            await self.abandon(agent_id)

    # -- its life --------------------------------------------------------------------

    async def replace(self) -> None:
        """Connect to another keeper in place of a lost one; :meth:`resume` must follow.

        It is the same one if it lives and only the connection was lost. Raises
        ``CommunicationError`` if there is none to be had.
        """
        before = self._process
        await self._join()
        self._connection.post("limit_total", bytes=self._total_limit_bytes)
        if self._process.pid == before.pid:
            self._process.close()
            self._process = before
        else:
            await asyncio.to_thread(before.collect)

    async def until_back(self) -> None:
        """Return when there is a keeper that has taken the agents over, or never will be."""
        await self._usable.wait()

    def resume(self) -> None:
        """Let the calls that wait for the new keeper go on."""
        if not self._over:
            self.lost = None
            self._usable.set()
            if self._connection.lost is not None:
                self._lose(self._connection.lost)

    def give_up(self, reason: str) -> None:
        """Kill a keeper that is of no use any more: it is lost for good, and that is said."""
        if not self._over:
            self._over = True
            self._process.kill()
            if self.lost is None:
                self._connection.lose(reason)
            else:
                self._usable.set()
                self._events.keeper_lost(reason)

    def detach(self) -> None:
        """Let go of the keeper and leave it and the agents as they are."""
        self._over = self._detached = True
        self._usable.set()
        self._connection.close()
        self._process.close()
        self._ends.close()

    async def aclose(self, *, grace_secs: float = 0.0) -> None:
        """End the keeper, which stops what is left, and reap it. Twice is fine.

        After :meth:`detach` there is nothing left to do.
        """
        if self._detached:
            return
        if self._closed is None:
            self._closed = asyncio.create_task(self._close(grace_secs))
        await asyncio.shield(self._closed)

    async def _close(self, grace_secs: float) -> None:
        was_over, self._over = self._over, True
        if self._connection.lost is None and not was_over:
            try:
                async with asyncio.timeout(grace_secs + _END_SECS):
                    await self._connection.ask("end", grace_secs=grace_secs)
            except (CommunicationError, ExecutionError, TimeoutError):
                self._process.kill()
                self._events.keeper_lost("the keeper did not end in order")
        self._usable.set()
        self._connection.close()
        self._ends.close()
        await asyncio.to_thread(self._process.reap)

    async def _join(self) -> None:
        joined = await join_keeper(
            self._place, self._wanted, self._hold_all, self._take_event, self._connection_lost
        )
        self._process = joined.process
        self._connection = joined.connection
        self._wanted = Wanted(instance=joined.instance, keep=self._wanted.keep)
        self.is_new = joined.is_new

    def _connection_lost(self, connection: KeeperConnection, reason: str) -> None:
        # Of one that is only being joined whoever asks it something hears.
        if self._usable.is_set() and connection is self._connection:
            self._lose(reason)

    def _lose(self, reason: str) -> None:
        """The keeper is gone: for a while, unless it was given up."""
        self.lost = reason
        if not self._over:
            self._usable.clear()
        if self._closed is None:
            self._events.keeper_lost(reason)

    def _ask(
        self,
        operation: str,
        body: bytes = b"",
        take: TakeDescriptors | None = None,
        **fields: Any,
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        if self._usable.is_set():
            return self._connection.ask(operation, body, take=take, **fields)
        return self._ask_later(operation, body, take, fields)

    async def _ask_later(
        self,
        operation: str,
        body: bytes,
        take: TakeDescriptors | None,
        fields: Mapping[str, Any],
    ) -> dict[str, Any]:
        await self._usable.wait()
        return await self._connection.ask(operation, body, take=take, **fields)

    def _take_event(self, header: dict[str, Any]) -> None:
        if header["event"] == "grew":
            self._events.output_grew(output_grew_of(header))
        elif header["event"] == "stdin":
            self._ends.close_stdin(id_of(header["agent"]))
        elif header["event"] == "ended":
            event = ended_of(header)
            self._ends.drop(event.agent_id)
            self._events.agent_ended(event)

    def _take_started(self, launch: Launch, names: list[str], found: list[int] | None) -> None:
        self._ends.take(launch.agent_id, names, found)
        if launch.stdin == "close-after-task" and "stdin" in names:
            self._ends.will_close_stdin(launch.agent_id)

    def _take_duplicates(self, header: dict[str, Any], found: list[int] | None) -> None:
        is_complete = found is not None and len(found) == sum(len(n) for _, n in header["agents"])
        if not is_complete:
            close_all(found or ())
        descriptors = iter(found or ())
        for agent_id, names in header["agents"]:
            mine = [next(descriptors) for _ in names] if is_complete else None
            if names:
                self._ends.take(id_of(agent_id), names, mine)
            else:  # it has ended
                self._ends.drop(id_of(agent_id))


def _in_one(environment: Mapping[str, str]) -> str:
    """Return an environment as a launch has it. Raises ``SpawnFailed`` for what cannot be one."""
    text = "\0".join([f"{name}={value}" for name, value in environment.items()])
    if "=" in "".join(environment) or text.count("\0") != len(environment) - 1:
        raise SpawnFailed("a variable's name has '=' in it, or a variable a NUL")
    return text
