"""Queries over output, in threads: a filter over 64 MiB takes a while, and nobody else waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .._core import LogStreamType, ZmqOutputStream
from ..errors import ServerBusy
from .agent import Agent
from .output import MAX_RESULT_BYTES, QueryResult, last_lines, query

__all__ = ["Queries"]

_MAX_WAITING = 64

_Result = TypeVar("_Result")


class Queries:
    """Runs queries in ``threads``, at most 64 waiting or running."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._count = 0

    async def query(
        self,
        agent: Agent,
        stream: ZmqOutputStream,
        pattern: str | None,
        limit: int | None,
        offset: int | None,
    ) -> QueryResult:
        """Return the lines of a stream, or of stdout and then stderr, that match ``pattern``."""
        outputs = {
            ZmqOutputStream.STDOUT: [agent.stdout],
            ZmqOutputStream.STDERR: [agent.stderr],
            ZmqOutputStream.BOTH: [agent.stdout, agent.stderr],
        }[stream]
        return await self._run(
            lambda: query(outputs, pattern=pattern, limit=limit, offset=offset or 0)
        )

    async def last_lines(
        self, agent: Agent, stream: LogStreamType, max_lines: int
    ) -> tuple[list[str], int]:
        """Return a stream's last lines, and how many lines it has."""
        output = agent.output(stream)
        # An answer has room for two streams.
        return await self._run(
            lambda: last_lines(output, max_lines, max_bytes=MAX_RESULT_BYTES // 2)
        )

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        if self._count >= _MAX_WAITING:
            raise ServerBusy("too many queries are in progress")
        self._count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._count -= 1
