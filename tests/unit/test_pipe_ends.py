"""Duplicates of pipes' ends: each is closed once, and none is held that the server needs."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from descartes_fast.server.pipe_ends import PipeEnds

NAMES = ("stdin", "backlog", "stdout", "stderr", "exit")


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


def test_stdin_and_its_backlog_are_closed_when_the_agent_shall_see_its_end(ends: PipeEnds) -> None:
    agent, numbers = held(ends)
    ends.will_close_stdin(agent)
    assert ends.is_closing_stdin(agent)
    ends.close_stdin(agent)
    ends.close_stdin(agent)
    ends.close_stdin(uuid4())
    assert are_open(numbers) == [False, False, True, True, True]
    assert list(ends.of(agent)) == ["stdout", "stderr", "exit"]
    assert not ends.is_closing_stdin(agent)


def test_closing_is_remembered_while_ends_come_again_and_forgotten_at_the_end(
    ends: PipeEnds,
) -> None:
    agent, _ = held(ends)
    ends.will_close_stdin(agent)
    ends.take(agent, NAMES, descriptors())
    assert ends.is_closing_stdin(agent)
    ends.drop(agent)
    assert not ends.is_closing_stdin(agent)


def test_backlog_that_comes_later_is_held_instead_of_an_earlier_one(ends: PipeEnds) -> None:
    agent, numbers = held(ends)
    backlog = os.open(os.devnull, os.O_RDONLY)
    ends.add(agent, ["backlog"], [backlog])
    assert ends.of(agent)["backlog"] == backlog
    assert are_open(numbers) == [True, False, True, True, True]


def test_backlog_that_was_lost_is_missing(ends: PipeEnds) -> None:
    agent, numbers = held(ends)
    ends.add(agent, ["backlog"], None)
    assert ends.missing == [agent]
    assert all(are_open(numbers))


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
