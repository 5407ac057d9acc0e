"""The bounded stream that every subscription is."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine

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


async def test_many_entries_at_once_wake_a_waiter_and_keep_to_the_limit() -> None:
    stream: Subscription[int] = Subscription(limit=4)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    stream._put_all([0, 1, 2])
    assert await waiting == 0
    stream._put(UsageError("between"))
    stream._put_all([3, 4])
    assert stream.dropped == 1
    assert await anext(stream) == 2
    with pytest.raises(UsageError):
        await anext(stream)
    stream._end()
    stream._put_all([5, 6])
    assert [number async for number in stream] == [3, 4]


async def test_next_takes_nothing_before_it_is_awaited_and_can_be_awaited_once() -> None:
    stream: Subscription[int] = Subscription(limit=10)
    stream._put_all([1, 2, 3])
    later, sooner = stream.__anext__(), stream.__anext__()
    assert await sooner == 1
    assert await later == 2
    with pytest.raises(RuntimeError, match="awaited already"):
        await later
    waited = stream.__anext__()
    assert await anext(stream) == 3
    waiting = asyncio.ensure_future(waited)
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="being awaited"):
        await waited
    stream._put(4)
    assert await waiting == 4
    with pytest.raises(RuntimeError, match="awaited already"):
        await waited


@pytest.mark.parametrize("entry", [(), (1, 2), None, 0, [1], ValueError])
async def test_whatever_an_entry_is_it_arrives_as_it_is(entry: object) -> None:
    stream: Subscription[object] = Subscription(limit=10)
    stream._put_all([entry] * 4)
    assert await anext(stream) is entry
    assert await asyncio.create_task(stream.__anext__()) is entry
    with pytest.raises(StopIteration) as stop:
        stream.__anext__().send(None)
    assert stop.value.value is entry
    assert await anext(stream, "default") is entry
    stream._end()
    assert await anext(stream, "default") == "default"


async def test_next_is_a_coroutine_for_whoever_takes_coroutines() -> None:
    stream: Subscription[int] = Subscription(limit=10)
    following = stream.__anext__()
    assert isinstance(following, Coroutine)
    assert inspect.isawaitable(following)
    assert asyncio.iscoroutine(following)
    following.close()
    stream._put_all([1, 2])
    assert await asyncio.wait_for(anext(stream), 5) == 1
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stream.__anext__()) for _ in range(3)]
        await asyncio.sleep(0)
        stream._put_all([3, 4])
    assert sorted(task.result() for task in tasks) == [2, 3, 4]


async def test_timeout_and_cancellation_before_and_in_the_wait_lose_nothing() -> None:
    stream: Subscription[int] = Subscription(limit=10)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.001)
    unstarted = asyncio.create_task(stream.__anext__())
    unstarted.cancel()
    waiting = asyncio.create_task(stream.__anext__())
    with pytest.raises(asyncio.CancelledError):
        await unstarted
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not stream._waiters
    stream._put(1)
    assert await anext(stream) == 1


async def test_next_that_is_closed_or_thrown_into_takes_nothing() -> None:
    stream: Subscription[int] = Subscription(limit=10)
    stream._put(1)
    closed, thrown = stream.__anext__(), stream.__anext__()
    closed.close()
    closed.close()
    with pytest.raises(KeyError, match="thrown"):
        thrown.throw(KeyError("thrown"))
    for over in (closed, thrown):
        with pytest.raises(RuntimeError, match="awaited already"):
            await over
    assert await anext(stream) == 1
    waiting = stream.__anext__()
    waiting.send(None)
    waiting.close()
    assert not stream._waiters


async def test_next_that_nobody_awaits_warns() -> None:
    stream: Subscription[int] = Subscription(limit=10)
    stream._put(1)
    forgotten = [stream.__anext__()]
    with pytest.warns(RuntimeWarning, match="never awaited"):
        forgotten.clear()
    assert await anext(stream) == 1


async def test_taken_entries_are_told_errors_too() -> None:
    taken: list[object] = []
    stream: Subscription[int] = Subscription(limit=10, on_taken=taken.append)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    stream._put_all([1, 2])
    error = UsageError("three")
    stream._put(error)
    assert await waiting == 1
    assert await anext(stream) == 2
    with pytest.raises(UsageError):
        await anext(stream)
    assert taken == [1, 2, error]
