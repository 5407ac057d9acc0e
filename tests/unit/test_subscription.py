"""The bounded stream that every subscription is."""

from __future__ import annotations

import asyncio

import pytest

from descartes_fast import CommunicationError, Subscription, UsageError


async def test_entries_come_in_order_and_then_the_end() -> None:
    stream: Subscription[int] = Subscription(limit=10)
    for number in range(3):
        stream._put(number)
    stream._end()
    assert [number async for number in stream] == [0, 1, 2]


async def test_full_queue_drops_the_oldest_and_counts() -> None:
    stream: Subscription[int] = Subscription(limit=3)
    for number in range(10):
        stream._put(number)
    stream._end()
    assert [number async for number in stream] == [7, 8, 9]
    assert stream.dropped == 7


async def test_error_is_raised_at_its_place_and_iteration_goes_on() -> None:
    stream: Subscription[int] = Subscription(limit=10)
    stream._put(1)
    stream._put(UsageError("between"))
    stream._put(2)
    stream._end()
    assert await anext(stream) == 1
    with pytest.raises(UsageError, match="between"):
        await anext(stream)
    assert [number async for number in stream] == [2]


async def test_error_in_a_full_queue_takes_no_message_and_is_not_pushed_out() -> None:
    stream: Subscription[int] = Subscription(limit=3)
    for number in range(3):
        stream._put(number)
    stream._put(UsageError("at the limit"))
    assert stream.dropped == 0
    for number in range(3, 9):
        stream._put(number)
    assert stream.dropped == 6
    with pytest.raises(UsageError, match="limit"):
        await anext(stream)
    stream._end()
    assert [number async for number in stream] == [6, 7, 8]


async def test_trouble_is_told_once_until_it_is_over_and_was_taken() -> None:
    stream: Subscription[int] = Subscription(limit=3)
    for _ in range(100):
        stream._trouble(CommunicationError("gone"))
        stream._trouble(UsageError("worse"))
        stream._recovered()
    with pytest.raises(CommunicationError, match="gone"):
        await anext(stream)
    stream._trouble(CommunicationError("gone again"))
    stream._trouble(CommunicationError("and still"))
    stream._end()
    with pytest.raises(CommunicationError, match="again"):
        await anext(stream)
    assert [number async for number in stream] == []


async def test_waiting_iteration_wakes_for_an_entry_and_for_the_end() -> None:
    stream: Subscription[int] = Subscription(limit=10)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    stream._put(1)
    assert await waiting == 1
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_cancelled_wait_loses_nothing() -> None:
    stream: Subscription[int] = Subscription(limit=10)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    stream._put(1)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await anext(stream) == 1


async def test_two_readers_share_the_entries() -> None:
    stream: Subscription[int] = Subscription(limit=10)
    readers = [asyncio.ensure_future(anext(stream)) for _ in range(2)]
    await asyncio.sleep(0)
    stream._put(1)
    stream._put(2)
    assert sorted(await asyncio.gather(*readers)) == [1, 2]


async def test_close_twice_ends_and_forgets() -> None:
    async with Subscription[int](limit=10) as stream:
        stream._put(1)
        await stream.aclose()
    await stream.aclose()
    assert [number async for number in stream] == []
