"""Blocking work in a thread, whose result is not lost when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["in_thread"]

_Result = TypeVar("_Result")


async def in_thread(
    work: Callable[[], _Result], undo: Callable[[_Result], Awaitable[None]]
) -> _Result:
    """Return what ``work`` returns in a thread; what comes of it after a cancellation is undone."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await undo(await working)
        raise
