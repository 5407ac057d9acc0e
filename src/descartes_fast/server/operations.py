"""The twelve control commands, each on one agent.

What needs nothing but memory and files is answered at once; what needs the keeper, a thread
or time is a coroutine.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from .._core import AgentStatus, ControlCommandType, LogStreamType, PauseMode, to_builtins
from ..errors import CommunicationError, InvalidState, NotFound, ServerBusy, Unsupported
from .actions import Actions
from .agent import Agent
from .journal import NoJournal
from .keeper_link import KeeperLink
from .payloads import (
    ActionPayload,
    QueryPayload,
    ReadPayload,
    WritePayload,
    grace_secs,
    pause_mode,
    signal_number,
)
from .queries import Queries
from .reading import read_now, read_when_there
from .tasks import Tasks

__all__ = ["Operations", "consumes", "mutates"]

Answer = Any
_Result = TypeVar("_Result")

PAUSE_NOTICE = b'{"type":"pause"}\n'
RESUME_NOTICE = b'{"type":"resume"}\n'
"""The lines on stdin that ask an agent of a cooperative backend to pause and to go on."""

_MUTATING = frozenset(
    {
        ControlCommandType.PAUSE,
        ControlCommandType.RESUME,
        ControlCommandType.STOP,
        ControlCommandType.KILL,
        ControlCommandType.WRITE_STDIN,
        ControlCommandType.SIGNAL,
        ControlCommandType.CUSTOM_ACTION,
    }
)
_READING = frozenset({ControlCommandType.READ_STDOUT, ControlCommandType.READ_STDERR})


def mutates(command: ControlCommandType) -> bool:
    """Tell whether repeating the command could do something twice."""
    return command in _MUTATING


def consumes(command: ControlCommandType, payload: Any) -> bool:
    """Tell whether the command moves a shared read cursor."""
    return command in _READING and not (
        isinstance(payload, dict) and payload.get("offset") is not None
    )


class Operations:
    """The commands, over the keeper that has the processes.

    ``pub_endpoint`` is what ``stream_logs`` tells. ``longest_wait_secs`` bounds the wait of a read;
    ``releases`` says that agents wait until their output is read (``output_policy = "wait"``).
    Read cursors go into ``journal``; ``background`` runs what a reply does not wait for.

    What the keeper is asked to do it is asked under the request's key, so that a request that is
    repeated after a crash is not carried out twice. Stopping and waking processes has no key: a
    pause is what is true when it is answered, whatever was done in between.
    """

    def __init__(
        self,
        keeper: KeeperLink,
        actions: Actions,
        queries: Queries,
        journal: NoJournal,
        background: Tasks,
        *,
        pub_endpoint: str,
        stop_grace_secs: float,
        longest_wait_secs: float,
        releases: bool,
    ) -> None:
        self._keeper = keeper
        self._actions = actions
        self._queries = queries
        self._journal = journal
        self._background = background
        self._pub_endpoint = pub_endpoint
        self._stop_grace_secs = stop_grace_secs
        self._longest_wait_secs = longest_wait_secs
        self._releases = releases
        self._commands: dict[ControlCommandType, Callable[[Agent, Any, str], Any]] = {
            ControlCommandType.PAUSE: self._pause,
            ControlCommandType.RESUME: self._resume,
            ControlCommandType.STOP: self._stop,
            ControlCommandType.KILL: self._kill,
            ControlCommandType.WRITE_STDIN: self._write_stdin,
            ControlCommandType.READ_STDOUT: self._read_stdout,
            ControlCommandType.READ_STDERR: self._read_stderr,
            ControlCommandType.GET_STATUS: self._get_status,
            ControlCommandType.SIGNAL: self._signal,
            ControlCommandType.CUSTOM_ACTION: self._custom_action,
            ControlCommandType.QUERY_OUTPUT: self._query_output,
            ControlCommandType.STREAM_LOGS: self._stream_logs,
        }

    def run(
        self, agent: Agent, command: ControlCommandType, payload: Any, key: str
    ) -> Answer | Coroutine[Any, Any, Answer]:
        """Do a command: return its data, or a coroutine that will.

        ``key`` is the same for the same request sent again, and for nothing else; without one
        it is empty. Raises ``AgentError``.
        """
        return self._commands[command](agent, payload, key)

    def _get_status(self, agent: Agent, payload: Any, key: str) -> Answer:
        data = agent.status_data()
        if isinstance(payload, dict) and payload.get("info") is True:
            data["info"] = to_builtins(agent.info())
        return data

    def _stream_logs(self, agent: Agent, payload: Any, key: str) -> Answer:
        return {"pub_endpoint": self._pub_endpoint, "topic": str(agent.id), "enabled": True}

    def _read_stdout(self, agent: Agent, payload: Any, key: str) -> Any:
        return self._read(agent, LogStreamType.STDOUT, payload)

    def _read_stderr(self, agent: Agent, payload: Any, key: str) -> Any:
        return self._read(agent, LogStreamType.STDERR, payload)

    def _read(self, agent: Agent, stream: LogStreamType, payload: Any) -> Any:
        asked = ReadPayload.of(payload)
        if asked.wait_secs:
            return self._read_later(agent, stream, asked)
        answer = read_now(agent, stream, asked)
        if asked.offset is None:
            self._consumed(agent, stream, answer)
        return answer

    async def _read_later(self, agent: Agent, stream: LogStreamType, asked: ReadPayload) -> Answer:
        answer = await read_when_there(agent, stream, asked, self._longest_wait_secs)
        if asked.offset is None:
            self._consumed(agent, stream, answer)
        return answer

    def _consumed(self, agent: Agent, stream: LogStreamType, answer: Answer) -> None:
        """Record how far was read, and let an agent go on that waits for that.

        What is let go may be gone, so it is only when the answer is safe in the journal.
        """
        if answer["bytes"]:
            self._journal.save_cursor(agent.id, stream.value, answer["next_offset"])
            if self._releases and not agent.has_ended:
                release = self._release_when_stored(agent, stream.value, answer["next_offset"])
                self._background.start(release)

    async def _release_when_stored(self, agent: Agent, stream: str, offset: int) -> None:
        await self._journal.stored()
        with contextlib.suppress(NotFound, CommunicationError):  # a later keeper is told anew
            await self._keeper.release(agent.id, stream, offset)

    async def _pause(self, agent: Agent, payload: Any, key: str) -> Answer:
        """Stop the whole process group, or ask the agent where its backend says it listens.

        A backend with ``pause = "cooperative"`` promises that its agents act upon the line of
        ``PAUSE_NOTICE`` on their stdin; of others nobody knows, so they are refused rather than
        called paused.
        """
        mode = pause_mode(payload) or PauseMode(agent.pause_policy)
        async with agent.pausing:
            agent.require_alive("pause")
            if agent.pause_mode in (mode, PauseMode.FORCED):
                return _paused(agent)
            if agent.stop_asked:
                raise InvalidState("cannot pause: the agent is being stopped")
            if mode is PauseMode.FORCED:
                await self._stop_processes(agent)
            elif agent.pause_policy == "cooperative":
                await self._keeper.write_stdin(agent.id, PAUSE_NOTICE, key=key)
                agent.pause_noticed = True
            else:
                raise Unsupported(f"backend {agent.model_backend!r} has no cooperative pause")
            agent.require_alive("pause")
            agent.paused(mode)
            return _paused(agent)

    async def _stop_processes(self, agent: Agent) -> None:
        """Send SIGSTOP; a server after this one that finds it begun does it again."""
        agent.pause_begun = True
        try:
            with contextlib.suppress(ServerBusy):
                await self._journal.committed()
            agent.require_alive("pause")  # the keeper forgets it soon after its end
            with _ended_meanwhile(agent, "pause"):
                await self._keeper.signal(agent.id, signal.SIGSTOP, tree=True)
        except BaseException:
            agent.pause_begun = False
            raise

    async def _resume(self, agent: Agent, payload: Any, key: str) -> Answer:
        async with agent.pausing:
            agent.require_alive("resume")
            if agent.status is AgentStatus.PAUSED and agent.pause_noticed:
                await self._keeper.write_stdin(agent.id, RESUME_NOTICE, key=key)
                agent.pause_noticed = False
                agent.require_alive("resume")
            # Always: an agent can be stopped by itself or by others, and nobody is told.
            with _ended_meanwhile(agent, "resume"):
                await self._keeper.signal(agent.id, signal.SIGCONT, tree=True)
            if agent.status is AgentStatus.PAUSED:  # else it ran, or has ended since
                agent.resumed()
            return {"resumed": True}

    async def _stop(self, agent: Agent, payload: Any, key: str) -> Answer:
        """End the agent within its grace; one that has ended is stopped already."""
        default = agent.stop_grace_secs
        grace = grace_secs(payload, self._stop_grace_secs if default is None else default)
        await self.stop(agent, grace, key)
        return {}

    async def stop(self, agent: Agent, grace: float, key: str = "") -> None:
        """Ask an agent to end, and see to it after ``grace`` seconds."""
        await self._end(agent, grace, lambda: self._keeper.stop(agent.id, grace, key=key))
        # Stopping wakes the paused: an agent that handles SIGTERM runs now.
        if agent.status is AgentStatus.PAUSED:
            agent.resumed()

    async def _kill(self, agent: Agent, payload: Any, key: str) -> Answer:
        await self._end(agent, 0, lambda: self._keeper.kill(agent.id, key=key))
        return {}

    async def _end(
        self, agent: Agent, grace: float, ask_keeper: Callable[[], Awaitable[None]]
    ) -> None:
        """Have the keeper end an agent; if it has ended meanwhile that was its own doing."""
        earlier_ns = agent.stop_by_ns
        by_ns = time.time_ns() + int(grace * 1e9)
        # At once: the end can overtake the keeper's answer.
        agent.stop_by_ns = by_ns if earlier_ns is None else min(by_ns, earlier_ns)
        await agent.wait_until_started()
        if agent.has_ended:
            return
        with contextlib.suppress(ServerBusy):  # a server after this one calls it asked for, too
            await self._journal.committed()
        try:
            await ask_keeper()
        except (InvalidState, NotFound):
            agent.stop_by_ns = earlier_ns

    async def _write_stdin(self, agent: Agent, payload: Any, key: str) -> Answer:
        asked = WritePayload.of(payload)

        async def write() -> int:
            return await self._keeper.write_stdin(agent.id, asked.data, close=asked.close, key=key)

        return {"bytes_written": await self._on_living(agent, "write", write, key)}

    async def _signal(self, agent: Agent, payload: Any, key: str) -> Answer:
        """Signal the agent's process; those that stop, wake and kill are the commands for it."""
        number = signal_number(payload)
        if number == signal.SIGSTOP:
            agent.require_alive("signal")
            await self._pause(agent, {"mode": "forced"}, key)
        elif number == signal.SIGCONT and agent.status is AgentStatus.PAUSED:
            await self._resume(agent, None, key)
        elif number == signal.SIGKILL:
            agent.require_alive("signal")
            await self._kill(agent, None, key)
        else:
            agent.signal_asked(number)
            await self._on_living(
                agent, "signal", lambda: self._keeper.signal(agent.id, number, key=key), key
            )
        return {"signal_sent": _signal_name(number)}

    async def _on_living(
        self, agent: Agent, doing: str, ask_keeper: Callable[[], Awaitable[_Result]], key: str
    ) -> _Result:
        """Ask the keeper for what only an agent that lives can be done to.

        One that has ended may have lived when an earlier server had the same request carried out;
        the keeper knows.
        """
        if agent.has_ended and key and self._journal.keeps:
            with contextlib.suppress(InvalidState, NotFound, CommunicationError):
                return await ask_keeper()
        agent.require_alive(doing)
        with _ended_meanwhile(agent, doing):
            return await ask_keeper()

    def _custom_action(self, agent: Agent, payload: Any, key: str) -> Any:
        asked = ActionPayload.of(payload)
        return self._actions.run(agent, asked.action, asked.params, asked.timeout_secs)

    async def _query_output(self, agent: Agent, payload: Any, key: str) -> Answer:
        asked = QueryPayload.of(payload)
        data: dict[str, Any] = {}
        for stream, wanted in (
            (LogStreamType.STDOUT, asked.stdout),
            (LogStreamType.STDERR, asked.stderr),
        ):
            lines, total = (
                await self._queries.last_lines(agent, stream, asked.max_lines)
                if wanted
                else ([], 0)
            )
            data[stream.value] = lines
            data[f"{stream.value}_lines"] = total
            data[f"{stream.value}_start"] = agent.output(stream).start
        return data


@contextlib.contextmanager
def _ended_meanwhile(agent: Agent, doing: str) -> Iterator[None]:
    """Say of an agent that the keeper has forgotten, or a new one never had, that it has ended."""
    try:
        yield
    except NotFound:
        agent.require_alive(doing)
        raise


def _paused(agent: Agent) -> Answer:
    assert agent.pause_mode is not None
    return {"paused": True, "mode": agent.pause_mode.value}


def _signal_name(number: int) -> str | int:
    try:
        return signal.Signals(number).name
    except ValueError:
        return number
