"""Starting many agents: a bounded number of spawns in flight, one result for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from .errors import AgentError, InvalidContext, ProtocolError, UsageError
from .runner import Progress

__all__ = ["spawn_all"]

C = TypeVar("C")
R = TypeVar("R")


async def spawn_all(
    spawn: Callable[[C], Awaitable[R]],
    configs: Iterable[C],
    *,
    max_in_flight: int,
    progress: Progress | None,
) -> list[R | AgentError]:
    """Spawn every config and return, in order, the result of each or its error.

    One config's failure does not hide the agents that were started: a config that cannot
    even be sent is an ``InvalidContext`` in its place. Cancelling stops at once; agents
    started until then run on.
    """
    if max_in_flight < 1:
        raise UsageError("max_in_flight must be above zero")
    todo = list(configs)
    results: dict[int, R | AgentError] = {}
    positions = iter(range(len(todo)))

    async def work() -> None:
        for position in positions:
            try:
                results[position] = await spawn(todo[position])
            except AgentError as error:
                results[position] = error
            except (ProtocolError, UsageError) as error:
                refused = InvalidContext(str(error))
                refused.__cause__ = error
                results[position] = refused
            if progress is not None:
                progress(len(results), len(todo))

    workers = [asyncio.create_task(work()) for _ in range(min(max_in_flight, len(todo)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[position] for position in range(len(todo))]
