"""A keeper for tests: its events collected, launches with defaults, waiting for what is due."""

# ruff: noqa: ASYNC110, ASYNC240 - files of a test are small and local
from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from descartes_fast.server.keeper_link import Ended, KeeperLink, Launch, OutputGrew

__all__ = ["Events", "TestKeeper", "is_alive", "open_keeper", "size_of", "until"]


async def until(condition: Callable[[], bool], timeout_secs: float = 10.0) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(timeout_secs):
        while not condition():
            await asyncio.sleep(0.002)


def size_of(path: str | Path) -> int:
    """Return how long an output file is: it is there from its first byte on."""
    return os.stat(path).st_size if os.path.exists(path) else 0


def is_alive(pid: int) -> bool:
    """Whether there is a process of that id that is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


class Events:
    """Collects what the keeper says."""

    def __init__(self) -> None:
        self.all: list[OutputGrew | Ended] = []
        self.ended: dict[UUID, Ended] = {}
        self.grown: dict[UUID, OutputGrew] = {}
        self.lost: list[str] = []

    def output_grew(self, event: OutputGrew) -> None:
        self.all.append(event)
        self.grown[event.agent_id] = event

    def agent_ended(self, event: Ended) -> None:
        assert event.agent_id not in self.ended, "an agent ended twice"
        self.all.append(event)
        self.ended[event.agent_id] = event

    def keeper_lost(self, reason: str) -> None:
        self.lost.append(reason)


class TestKeeper:
    """A keeper and its events. ``link`` is what is tested."""

    __test__ = False

    def __init__(self, link: KeeperLink, events: Events, directory: Path) -> None:
        self.link = link
        self.events = events
        self.directory = directory

    def prepare(self, *argv: str, **settings: Any) -> Launch:
        """Return a launch of ``argv`` that differs from the usual one by ``settings``."""
        agent_id = uuid4()
        folder = self.directory / str(agent_id)
        usual: dict[str, Any] = {
            "agent_id": agent_id,
            "argv": argv,
            "environment": {"PATH": os.environ["PATH"]},
            "stdout_path": str(folder / "stdout"),
            "stderr_path": str(folder / "stderr"),
            "output_limit_bytes": 16 * 1024 * 1024,
        }
        return Launch(**{**usual, **settings})

    async def launch(self, *argv: str, **settings: Any) -> Launch:
        """Start ``argv``; return the launch."""
        launch = self.prepare(*argv, **settings)
        await self.link.launch(launch)
        return launch

    async def shell(self, script: str, **settings: Any) -> Launch:
        """Start a shell script."""
        return await self.launch("sh", "-c", script, **settings)

    async def python(self, program: str, **settings: Any) -> Launch:
        """Start a Python program."""
        return await self.launch(sys.executable, "-I", "-S", "-c", program, **settings)

    async def end(self, launch: Launch, timeout_secs: float = 10.0) -> Ended:
        """Wait for the end of an agent; return it."""
        await until(lambda: launch.agent_id in self.events.ended, timeout_secs)
        return self.events.ended[launch.agent_id]

    async def stdout(self, launch: Launch, length: int = 1) -> bytes:
        """Return an agent's stdout once it has that many bytes."""
        path = Path(launch.stdout_path)
        await until(lambda: size_of(path) >= length)
        return path.read_bytes() if length else b""

    async def number(self, launch: Launch) -> int:
        """Return the number, a process id say, in the first line of an agent's stdout."""
        path = Path(launch.stdout_path)
        await until(lambda: path.exists() and b"\n" in path.read_bytes())
        return int(path.read_bytes().split(b"\n")[0])


@asynccontextmanager
async def open_keeper(directory: Path) -> AsyncIterator[TestKeeper]:
    """Start a keeper that keeps everything in ``directory``, and end it."""
    events = Events()
    link = await KeeperLink.open(directory / "run", events)
    try:
        yield TestKeeper(link, events, directory / "agents")
    finally:
        await link.aclose()
