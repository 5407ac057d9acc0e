"""A client of a chaos run: a process that spawns agents, works with them and writes all down.

It is killed at any moment; its next life asks again, under the same ids, for what it had begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from descartes_fast import (
    AgentConfig,
    AgentError,
    AgentTimeout,
    CommandResponse,
    CommunicationError,
    ExecutionError,
    LogStreamType,
    ServerBusy,
    ZmqClient,
    ZmqRunnerConfig,
)

from .agents import AgentPlan, planned
from .history import ABANDONED, IN_DOUBT, OK, REFUSED, Call, Recorder, read_calls, text

__all__ = ["ClientSettings", "run_client"]

_CALL_SECS = 2.0
_AGAIN_SECS = 0.1
_TRIES_SECS = 90.0
"""How long a call is repeated before it counts as having no outcome."""
_HANDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Who the client is and where everything is."""

    endpoint: str
    pub_endpoint: str
    seed: int
    number: int
    life: int
    finishes: bool
    """Whether it only finishes what its earlier lives have begun."""
    folder: Path

    @property
    def record(self) -> Path:
        return self.folder / f"client-{self.number}.jsonl"


def run_client(settings: ClientSettings) -> int:
    """Work until SIGTERM, then finish what is begun. Returns the exit code."""
    asyncio.run(_Client(settings).run())
    return 0


class _Refused(Exception):
    """A call was refused, or nobody can tell what became of it."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class _Client:
    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._name = f"{settings.number}.{settings.life}"
        self._recorder = Recorder(settings.record, self._name)
        self._stopping = asyncio.Event()
        self._echoing: dict[str, str] = {}  # ids of those that may get a batch, by tag
        self._batch_numbers = itertools.count(1)
        self._client: ZmqClient

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        if self._settings.finishes:
            self._stopping.set()
        config = ZmqRunnerConfig(
            endpoint=self._settings.endpoint,
            pub_endpoint=self._settings.pub_endpoint,
            request_timeout_secs=_CALL_SECS,
            connection_timeout_secs=60.0,
            heartbeat_interval_secs=1.0,
            reconnect_delay_secs=0.5,
            max_reconnect_attempts=1000,
        )
        async with ZmqClient(config) as self._client:
            await self._finish_earlier_lives()
            async with asyncio.TaskGroup() as hands:
                for hand in range(_HANDS):
                    hands.create_task(self._work(hand))

    # What an earlier life has begun

    async def _finish_earlier_lives(self) -> None:
        """Ask again for what was begun and has no outcome, and end the agents that were left."""
        left: dict[str, str] = {}
        for call in read_calls(self._settings.record):
            arguments, result = call.arguments, call.result
            if not call.outcomes:
                send = self._again(call)
                if send is None:
                    self._recorder.end(call.id, ABANDONED)
                    continue
                with contextlib.suppress(_Refused):
                    answer = await self._settle(call.id, send)
                    result = {"agent_id": answer}
            if call.operation == "spawn" and result.get("agent_id"):
                left[arguments["agent"]] = result["agent_id"]
            elif call.operation == "wait" and call.outcome == OK:
                left.pop(arguments["agent"], None)
        for tag, agent_id in left.items():
            for act in (_Client._resume, _Client._close):
                with contextlib.suppress(_Refused):
                    await act(self, tag, agent_id, 0)

    def _again(self, call: Call) -> Callable[[], Any] | None:
        """Return what sends an earlier life's call again; ``None`` for one without an id."""
        if call.operation == "spawn":
            return lambda: self._send_spawn(call.arguments, call.id)
        if call.operation == "read":
            return lambda: self._send_read(call.arguments, call.id)
        if "command" in call.arguments:
            return lambda: self._send_command(call.arguments, call.id)
        return None

    # One story after the other

    async def _work(self, hand: int) -> None:
        dice = random.Random(f"{self._settings.seed}/{self._name}/{hand}")
        for number in itertools.count():
            if self._stopping.is_set():
                return
            try:
                await self._story(f"{self._name}.{hand}.{number}", dice)
            except _Refused:
                await asyncio.sleep(_AGAIN_SECS)

    async def _story(self, tag: str, dice: random.Random) -> None:
        """Start an agent, do this and that with it, and bring it to its end."""
        plan = planned(tag, dice)
        follows = dice.random() < 0.6
        steps = [dice.choice(_STEPS[plan.kind]) for _ in range(dice.randrange(2, 10))]
        ending = dice.choice(_ENDINGS[plan.kind])
        agent_id = await self._spawn(plan)
        follower = asyncio.create_task(self._follow(tag, agent_id)) if follows else None
        if plan.kind == "echo":
            self._echoing[tag] = agent_id
        try:
            for number, step in enumerate(steps):
                with contextlib.suppress(_Refused):
                    await step(self, tag, agent_id, number)
            self._echoing.pop(tag, None)
            await self._finish(ending, tag, agent_id)
            if follower is not None:
                await follower
        finally:
            self._echoing.pop(tag, None)
            if follower is not None:
                follower.cancel()
                await asyncio.gather(follower, return_exceptions=True)

    async def _finish(self, ending: Any, tag: str, agent_id: str) -> None:
        """End an agent, more firmly if nobody can tell whether that was done; see its end."""
        try:
            await ending(self, tag, agent_id, 0)
        except _Refused as refused:
            if refused.outcome == IN_DOUBT:
                await self._finish(_Client._kill, tag, agent_id)
                return
        await self._wait(tag, agent_id)

    # Calls

    async def _settle(self, call_id: str, send: Callable[[], Any]) -> Any:
        """Send a call until it has an outcome that will stay, and write that down."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _TRIES_SECS
        while True:
            try:
                answer, result = await send()
            except (AgentTimeout, CommunicationError, ServerBusy) as error:
                if loop.time() < deadline:
                    await asyncio.sleep(_AGAIN_SECS)
                    continue
                if isinstance(error, ServerBusy):
                    self._refuse(call_id, REFUSED, error)
                raise  # a call without an outcome: the history will show it
            except ExecutionError as error:
                self._refuse(call_id, IN_DOUBT, error)
            except AgentError as error:
                self._refuse(call_id, REFUSED, error)
            self._recorder.end(call_id, OK, **result)
            return answer

    def _refuse(self, call_id: str, outcome: str, error: AgentError) -> None:
        self._recorder.end(call_id, outcome, code=error.code, words=str(error))
        raise _Refused(outcome) from None

    async def _send_spawn(
        self, arguments: dict[str, Any], call_id: str
    ) -> tuple[str, dict[str, Any]]:
        plan = AgentPlan.of(arguments["plan"])
        config = AgentConfig(
            name=plan.tag,
            model_backend="py",
            task=plan.program(str(self._settings.folder / "births")),
        )
        info = await self._client.spawn_remote(config, _CALL_SECS, request_id=call_id)
        return str(info.id), {"agent_id": str(info.id)}

    async def _send_command(
        self, arguments: dict[str, Any], call_id: str
    ) -> tuple[CommandResponse, dict[str, Any]]:
        answer = await self._client.control_agent(
            arguments["agent_id"],
            arguments["command"],
            arguments["payload"],
            _CALL_SECS,
            request_id=call_id,
        )
        return answer, {}

    async def _send_read(
        self, arguments: dict[str, Any], call_id: str
    ) -> tuple[None, dict[str, Any]]:
        answer, _ = await self._send_command(arguments, call_id)
        return None, {"data": answer.data["data"] or ""}

    async def _spawn(self, plan: AgentPlan) -> str:
        arguments = {"agent": plan.tag, "plan": asdict(plan)}
        call_id = self._recorder.begin("spawn", **arguments)
        agent_id: str = await self._settle(call_id, lambda: self._send_spawn(arguments, call_id))
        return agent_id

    async def _command(
        self,
        operation: str,
        tag: str,
        agent_id: str,
        command: str,
        payload: Any = None,
        **more: Any,
    ) -> None:
        arguments = {"agent": tag, "agent_id": agent_id, "command": command, "payload": payload}
        call_id = self._recorder.begin(operation, **arguments, **more)
        await self._settle(call_id, lambda: self._send_command(arguments, call_id))

    async def _write(self, tag: str, agent_id: str, number: int) -> None:
        line = f"w{number}\n"
        await self._command("write", tag, agent_id, "write_stdin", {"data": line}, line=line)

    async def _close(self, tag: str, agent_id: str, _: int) -> None:
        await self._command("close", tag, agent_id, "write_stdin", {"data": "", "close": True})

    async def _stop(self, tag: str, agent_id: str, _: int) -> None:
        await self._command("stop", tag, agent_id, "stop", {"grace_secs": 1})

    async def _kill(self, tag: str, agent_id: str, _: int) -> None:
        await self._command("kill", tag, agent_id, "kill")

    async def _leave(self, tag: str, agent_id: str, _: int) -> None:
        """Do nothing: a writer ends by itself."""

    async def _pause(self, tag: str, agent_id: str, number: int) -> None:
        try:
            await self._command("pause", tag, agent_id, "pause")
        finally:
            await self._resume(tag, agent_id, number)

    async def _resume(self, tag: str, agent_id: str, number: int) -> None:
        """Resume, again if nobody can tell whether it was done: a paused agent does not end."""
        try:
            await self._command("resume", tag, agent_id, "resume")
        except _Refused as refused:
            if refused.outcome != IN_DOUBT:
                raise
            await self._resume(tag, agent_id, number)

    async def _read(self, tag: str, agent_id: str, _: int) -> None:
        arguments = {"agent": tag, "agent_id": agent_id, "command": "read_stdout"}
        arguments |= {"payload": {"encoding": "base64", "max_bytes": 500}}  # type: ignore[dict-item]
        call_id = self._recorder.begin("read", **arguments)
        await self._settle(call_id, lambda: self._send_read(arguments, call_id))

    async def _list(self, tag: str, _: str, __: int) -> None:
        call_id = self._recorder.begin("list")

        async def send() -> tuple[None, dict[str, Any]]:
            infos = await self._client.list_remote_agents()
            return None, {"tags": [info.name for info in infos]}

        await self._settle(call_id, send)

    async def _query(self, tag: str, agent_id: str, _: int) -> None:
        call_id = self._recorder.begin("query", agent=tag)

        async def send() -> tuple[None, dict[str, Any]]:
            found = await self._client.query_agent_output(agent_id, "stdout", limit=3)
            return None, {"lines": found.lines}

        await self._settle(call_id, send)

    async def _batch(self, tag: str, _: str, __: int) -> None:
        """Write a line to all echoing agents of this client; it cannot be repeated under its id."""
        agents = dict(self._echoing)
        if not agents:
            return
        line = f"b{self._name}.{next(self._batch_numbers)}\n"
        call_id = self._recorder.begin("batch", agents=sorted(agents), line=line)
        try:
            answer = await self._client.batch_control(
                list(agents.values()), "write_stdin", {"data": line}
            )
        except AgentError as error:
            refused = isinstance(error, ServerBusy)
            self._refuse(call_id, REFUSED if refused else IN_DOUBT, error)
        tags = {agent_id: tag for tag, agent_id in agents.items()}
        done: list[str] = []
        refused_by: list[str] = []
        doubtful: list[str] = []
        for result in answer.results:
            which = tags[str(result.agent_id)]
            if result.success:
                done.append(which)
            else:
                doubt = (result.error or "").startswith(("internal", "timeout"))
                (doubtful if doubt else refused_by).append(which)
        self._recorder.end(call_id, OK, done=done, refused=refused_by, doubtful=doubtful)

    async def _wait(self, tag: str, agent_id: str) -> None:
        call_id = self._recorder.begin("wait", agent=tag)

        async def send() -> tuple[None, dict[str, Any]]:
            end = await self._client.wait_agent(agent_id, _TRIES_SECS)
            return None, {"exit_code": end.exit_code, "signal": end.signal}

        await self._settle(call_id, send)

    async def _follow(self, tag: str, agent_id: str) -> None:
        """Follow an agent's output from its first byte to its last."""
        call_id = self._recorder.begin("follow", agent=tag)
        seen = {LogStreamType.STDOUT: b"", LogStreamType.STDERR: b""}
        complete = False
        try:
            async with await self._following(agent_id) as messages:
                while not complete:
                    try:
                        async for message in messages:
                            stream = message.stream_type
                            if message.sequence != len(seen[stream]):
                                seen[stream] += b"<a gap>"
                            seen[stream] += message.data
                        complete = True
                    except (CommunicationError, AgentTimeout, ServerBusy):
                        await asyncio.sleep(_AGAIN_SECS)
        except AgentError as error:
            self._recorder.end(call_id, REFUSED, code=error.code, words=str(error))
        except asyncio.CancelledError:
            self._recorder.end(call_id, ABANDONED)
            raise
        else:
            streams = {stream.value: text(data) for stream, data in seen.items()}
            self._recorder.end(call_id, OK, complete=complete, **streams)

    async def _following(self, agent_id: str) -> Any:
        while True:
            try:
                return await self._client.stream_agent_logs(agent_id, from_offset=0)
            except (AgentTimeout, CommunicationError, ServerBusy):
                await asyncio.sleep(_AGAIN_SECS)


_C = _Client
_STEPS: dict[str, list[Any]] = {
    "echo": [*[_C._write] * 6, _C._read, _C._list, _C._query, _C._pause, _C._batch],
    "writer": [_C._read, _C._read, _C._list, _C._query, _C._pause],
}
_ENDINGS: dict[str, list[Any]] = {
    "echo": [*[_C._close] * 4, _C._stop, _C._kill],
    "writer": [*[_C._leave] * 4, _C._stop, _C._kill],
}


def main(arguments: list[str]) -> int:
    endpoint, pub_endpoint, seed, number, life, finishes, folder = arguments
    return run_client(
        ClientSettings(
            endpoint=endpoint,
            pub_endpoint=pub_endpoint,
            seed=int(seed),
            number=int(number),
            life=int(life),
            finishes=finishes == "finish",
            folder=Path(folder),
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
