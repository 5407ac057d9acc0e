"""A keeper without processes: it remembers what it was asked and answers at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from descartes_fast import AgentConfig, StatusUpdate
from descartes_fast.errors import AgentError
from descartes_fast.server.agent import Agent
from descartes_fast.server.backends import LaunchPlan
from descartes_fast.server.keeper_link import Ended, Launch, OutputGrew, Started
from descartes_fast.server.output import OutputFile


class FakeKeeper:
    """Stands in for ``KeeperLink``; ``failure`` is raised by the next call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failure: AgentError | None = None
        self.stuck: asyncio.Event | None = None
        self.refused: dict[int, AgentError] = {}
        """Why ``signal_many`` does not reach some, by position."""

    async def launch(self, launch: Launch) -> Started:
        await self._call("launch", launch.agent_id)
        return Started(pid=4242, started_at_ns=time.time_ns(), start_ticks=1)

    async def write_stdin(
        self, agent_id: UUID, data: bytes, *, close: bool = False, key: str = ""
    ) -> int:
        await self._call("write_stdin", data, close)
        return len(data)

    async def signal(
        self, agent_id: UUID, signum: int, *, tree: bool = False, key: str = ""
    ) -> None:
        await self._call("signal", int(signum), tree)

    async def signal_many(
        self, agent_ids: bytes, signum: int, *, key: str = ""
    ) -> dict[int, AgentError]:
        await self._call("signal_many", len(agent_ids) // 16, signum, key)
        return self.refused

    async def stop(self, agent_id: UUID, grace_secs: float, *, key: str = "") -> None:
        await self._call("stop", grace_secs)

    async def kill(self, agent_id: UUID, *, key: str = "") -> None:
        await self._call("kill")

    async def release(self, agent_id: UUID, stream: str, offset: int) -> None:
        await self._call("release", stream, offset)

    async def ping(self) -> dict[str, object]:
        await self._call("ping")
        return {}

    async def _call(self, *call: Any) -> None:
        self.calls.append(call)
        if self.stuck is not None:
            await self.stuck.wait()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure


class Recorder:
    """An observer of agents that keeps what it is told."""

    def __init__(self) -> None:
        self.updates: list[StatusUpdate] = []
        self.ends = 0
        self.growths = 0

    def state_changed(self, agent: Agent) -> None:
        self.updates.append(agent.status_update())

    def was_noted(self, agent: Agent) -> None:
        pass

    def output_grew(self, agent: Agent) -> None:
        self.growths += 1

    def ended(self, agent: Agent) -> None:
        self.updates.append(agent.status_update())
        self.ends += 1


def made_agent(
    observer: Any,
    *,
    pause: Any = "forced",
    folder: str = "/nowhere",
    metadata: Mapping[str, str] | None = None,
) -> Agent:
    """Return an agent that is still to be accepted."""
    plan = LaunchPlan(argv=("true",), environment={}, limits={}, pause=pause)
    return Agent(
        uuid4(),
        AgentConfig(name="unit", model_backend="sh", task="do"),
        plan,
        metadata=metadata,
        stdout=OutputFile(f"{folder}/stdout"),
        stderr=OutputFile(f"{folder}/stderr"),
        observer=observer,
    )


def running_agent(observer: Any, **fields: Any) -> Agent:
    """Return an agent that runs."""
    agent = made_agent(observer, **fields)
    agent.accepted()
    agent.started(started())
    return agent


def started() -> Started:
    return Started(pid=4242, started_at_ns=time.time_ns(), start_ticks=1)


def ended(agent: Agent, **fields: Any) -> Ended:
    values: dict[str, Any] = {
        "agent_id": agent.id,
        "exit_code": None,
        "signal": None,
        "stdout_bytes": agent.stdout.end,
        "stderr_bytes": agent.stderr.end,
        "stdout_start": agent.stdout.start,
        "stderr_start": agent.stderr.start,
        "ended_at_ns": time.time_ns(),
        "user_secs": 0.0,
        "system_secs": 0.0,
        "max_rss_bytes": 0,
    }
    return Ended(**(values | fields))


def grown(agent: Agent, stdout: int = 0, stderr: int = 0) -> OutputGrew:
    return OutputGrew(
        agent_id=agent.id,
        stdout_bytes=stdout,
        stderr_bytes=stderr,
        stdout_start=0,
        stderr_start=0,
    )
