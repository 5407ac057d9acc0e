"""Many spawns: bounded, in order, one result each."""

from __future__ import annotations

import asyncio

import pytest

from descartes_fast import AgentError, InvalidContext, MessageTooLarge, SpawnFailed, UsageError
from descartes_fast.spawning import spawn_all


async def test_results_keep_the_order_of_the_configs() -> None:
    async def spawn(number: int) -> int:
        await asyncio.sleep((5 - number) / 1000)
        return number * 10

    results = await spawn_all(spawn, range(5), max_in_flight=5, progress=None)
    assert results == [0, 10, 20, 30, 40]


async def test_no_more_than_max_in_flight_run_at_once() -> None:
    running = most = 0

    async def spawn(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return number

    await spawn_all(spawn, range(50), max_in_flight=7, progress=None)
    assert most == 7


async def test_failure_is_the_result_of_its_config_alone() -> None:
    async def spawn(number: int) -> int:
        if number == 1:
            raise SpawnFailed("no such program")
        if number == 2:
            raise MessageTooLarge(11, 10)
        return number

    results: list[int | AgentError] = await spawn_all(
        spawn, range(4), max_in_flight=2, progress=None
    )
    assert results[0] == 0
    assert isinstance(results[1], SpawnFailed)
    assert isinstance(results[2], InvalidContext)
    assert results[3] == 3


async def test_progress_counts_up_to_all() -> None:
    async def spawn(number: int) -> int:
        return number

    seen: list[tuple[int, int]] = []
    await spawn_all(
        spawn, range(4), max_in_flight=2, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


async def test_error_of_the_progress_callback_comes_out_and_stops_the_rest() -> None:
    started: list[int] = []

    async def spawn(number: int) -> int:
        started.append(number)
        await asyncio.sleep(0)
        return number

    def progress(done: int, total: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await spawn_all(spawn, range(100), max_in_flight=2, progress=progress)
    assert len(started) < 100


async def test_nothing_to_spawn_is_an_empty_list() -> None:
    async def spawn(number: int) -> int:
        raise AssertionError

    assert await spawn_all(spawn, [], max_in_flight=2, progress=None) == []


async def test_max_in_flight_below_one_is_refused() -> None:
    async def spawn(number: int) -> int:
        raise AssertionError

    with pytest.raises(UsageError, match="max_in_flight"):
        await spawn_all(spawn, [1], max_in_flight=0, progress=None)
