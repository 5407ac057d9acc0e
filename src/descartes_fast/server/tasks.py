"""Background tasks with an owner that joins them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["Tasks"]


class Tasks:
    """Runs coroutines in the background until they end or :meth:`aclose` cancels them.

    What a task raises goes to the loop's exception handler.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()

    def start(self, coroutine: Coroutine[Any, Any, Any], *, name: str | None = None) -> None:
        """Run a coroutine in a task of its own."""
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def __len__(self) -> int:
        return len(self._tasks)

    async def join(self, timeout_secs: float) -> None:
        """Wait until all that run now have ended, at most ``timeout_secs``."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_secs)

    async def aclose(self) -> None:
        """Cancel what still runs and wait for its end; twice is fine."""
        # One turn for the tasks that have not begun: a coroutine that was given to one
        # of them would never be awaited otherwise.
        await asyncio.sleep(0)
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler(
                {"message": "a background task failed", "exception": error, "task": task}
            )
