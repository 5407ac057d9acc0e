"""Duplicates of pipes' ends: each is closed once, and none is held that the server needs."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from descartes_fast.server.pipe_ends import PipeEnds

NAMES = ("stdin", "stdout", "stderr", "exit")


@pytest.fixture
def ends() -> Iterator[PipeEnds]:
    made = PipeEnds()
    yield made
    made.close()


def descriptors() -> list[int]:
    return [os.open(os.devnull, os.O_RDONLY) for _ in NAMES]


def are_open(numbers: list[int]) -> list[bool]:
    return [os.path.exists(f"/proc/self/fd/{number}") for number in numbers]


def held(ends: PipeEnds) -> tuple[UUID, list[int]]:
    agent, numbers = uuid4(), descriptors()
    ends.take(agent, NAMES, numbers)
    return agent, numbers


def test_ends_are_held_by_name_until_they_are_dropped(ends: PipeEnds) -> None:
    agent, numbers = held(ends)
    assert ends.of(agent) == dict(zip(NAMES, numbers, strict=True))
    assert all(are_open(numbers))
    ends.drop(agent)
    ends.drop(agent)
    assert not any(are_open(numbers))
    assert ends.of(agent) == {}


def test_stdin_alone_is_closed_when_the_agent_shall_see_its_end(ends: PipeEnds) -> None:
    agent, numbers = held(ends)
    ends.close_stdin(agent)
    ends.close_stdin(agent)
    ends.close_stdin(uuid4())
    assert are_open(numbers) == [False, True, True, True]
    assert list(ends.of(agent)) == ["stdout", "stderr", "exit"]


def test_ends_that_come_again_take_the_place_of_the_first(ends: PipeEnds) -> None:
    agent, first = held(ends)
    second = descriptors()
    ends.take(agent, NAMES, second)
    assert not any(are_open(first))
    assert list(ends.of(agent).values()) == second


@pytest.mark.parametrize(("names", "found"), [(NAMES, None), ((), [])])
def test_lost_ends_are_missing_until_they_come(
    ends: PipeEnds, names: tuple[str, ...], found: list[int] | None
) -> None:
    agent = uuid4()
    ends.take(agent, names, found)
    assert ends.missing == [agent]
    ends.take(agent, NAMES, descriptors())
    assert ends.missing == []
    other = uuid4()
    ends.take(other, names, found)
    ends.drop(other)  # it has ended: nobody asks for them again
    assert ends.missing == []


def test_last_descriptors_of_the_process_are_not_held(ends: PipeEnds) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    agent, numbers = uuid4(), descriptors()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(numbers) + 2, before[1]))
    try:
        ends.take(agent, NAMES, numbers)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert ends.missing == [agent]
    assert not any(are_open(numbers))


def test_closing_closes_everything(ends: PipeEnds) -> None:
    both = [held(ends)[1], held(ends)[1]]
    ends.close()
    assert not any(are_open(both[0] + both[1]))
