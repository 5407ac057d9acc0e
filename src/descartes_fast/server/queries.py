"""Queries over output, in threads: a filter over 64 MiB takes a while, and nobody else waits."""

from __future__ import annotations

import asyncio
import threading
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
    """Runs queries, at most 64 waiting or running.

    Those with a filter have ``filter_threads`` for themselves: a pattern can be made to take
    all the time there is, and what is quick does not wait for it. None takes longer than
    ``timeout_secs`` by more than a second or two, and one that nobody waits for is given up.
    """

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        filter_threads: ThreadPoolExecutor,
        *,
        timeout_secs: float,
    ) -> None:
        self._threads = threads
        self._filter_threads = filter_threads
        self._timeout_secs = timeout_secs
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

        def work(is_cancelled: Callable[[], bool]) -> QueryResult:
            return query(
                outputs,
                pattern=pattern,
                limit=limit,
                offset=offset or 0,
                timeout_secs=self._timeout_secs,
                is_cancelled=is_cancelled,
            )

        return await self._run(self._threads if pattern is None else self._filter_threads, work)

    async def last_lines(
        self, agent: Agent, stream: LogStreamType, max_lines: int
    ) -> tuple[list[str], int]:
        """Return a stream's last lines, and how many lines it has."""
        output = agent.output(stream)

        def work(is_cancelled: Callable[[], bool]) -> tuple[list[str], int]:
            # An answer has room for two streams.
            return last_lines(
                output, max_lines, max_bytes=MAX_RESULT_BYTES // 2, is_cancelled=is_cancelled
            )

        return await self._run(self._threads, work)

    async def _run(
        self, threads: ThreadPoolExecutor, work: Callable[[Callable[[], bool]], _Result]
    ) -> _Result:
        if self._count >= _MAX_WAITING:
            raise ServerBusy("too many queries are in progress")
        cancelled = threading.Event()
        self._count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work, cancelled.is_set)
        finally:
            cancelled.set()
            self._count -= 1
