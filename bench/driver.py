"""The other side of :mod:`.contestants`: a program's rounds, asked for line by line."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

__all__ = ["absent", "drive", "drive_async", "percentiles", "timed_workers"]

Round = Callable[..., dict[str, Any]]
AsyncRound = Callable[..., Awaitable[dict[str, Any]]]


def drive(make: Callable[[], AbstractContextManager[Round]]) -> None:
    """Do the rounds that stdin asks for with the function that ``make`` yields."""
    with make() as one_round:
        _say({})
        for line in sys.stdin:
            _say(one_round(**json.loads(line)))


def drive_async(
    make: Callable[[], AbstractAsyncContextManager[AsyncRound]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """The same for a coroutine function, on uvloop unless told otherwise.

    The loop stands still between the rounds: nobody's heartbeat disturbs another's round.
    """

    async def run() -> None:
        async with make() as one_round:
            _say({})
            for line in sys.stdin:  # noqa: ASYNC251, RUF100 - standing still is meant
                _say(await one_round(**json.loads(line)))

    if loop_factory is None:
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())


def absent(words: str) -> None:
    """Say that this program cannot be measured here, and end."""
    _say({"absent": words})
    raise SystemExit(0)


async def timed_workers(
    calls: Sequence[Callable[[], Awaitable[Any]]],
    *,
    count: int,
    in_flight: int,
    pause_secs: float = 0.0,
) -> dict[str, Any]:
    """Call ``calls`` in turn until ``count`` are done, always ``in_flight`` at a time.

    After each there is a pause, if one is given. Returns the rate and the percentiles of the time
    that a call took. Every asyncio contestant is driven by this, so its own cost is the same for
    all.
    """
    took: list[float] = []
    left = iter(range(count))
    clock = time.perf_counter

    async def work(call: Callable[[], Awaitable[Any]]) -> None:
        for _ in left:
            begun = clock()
            await call()
            took.append(clock() - begun)
            if pause_secs:
                await asyncio.sleep(pause_secs)

    begun = clock()
    await asyncio.gather(*(work(calls[number % len(calls)]) for number in range(in_flight)))
    secs = clock() - begun
    return {"rate": count / secs, "done": len(took), **percentiles(took)}


def percentiles(secs: Sequence[float]) -> dict[str, float]:
    """Return p50, p90, p99 and p99.9 in microseconds."""
    ordered = sorted(secs)
    return {
        name: ordered[min(len(ordered) - 1, math.ceil(len(ordered) * share) - 1)] * 1e6
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999))
        if ordered
    }


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)
