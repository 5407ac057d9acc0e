"""Requests in flight, without a socket."""

from __future__ import annotations

import asyncio
import math

import pytest

from descartes_fast import AgentTimeout, CommunicationError, UsageError
from descartes_fast.calls import Call, PendingCalls, checked_timeout


def unanswered(call: Call) -> AgentTimeout:
    return AgentTimeout(f"{call.timeout_secs:g} s")


@pytest.fixture
async def pending() -> PendingCalls:
    return PendingCalls(asyncio.get_running_loop(), unanswered)


async def test_answer_reaches_its_call_whatever_the_order(pending: PendingCalls) -> None:
    opened = [pending.open(pending.new_id(), b"", 5, True) for _ in range(10)]
    for call in reversed(opened):
        pending.answer(call.request_id, call.request_id.upper())
    assert [call.future.result() for call in opened] == [c.request_id.upper() for c in opened]
    assert len(pending) == 0
    pending.close()


async def test_answer_to_nobody_is_counted_and_dropped(pending: PendingCalls) -> None:
    call = pending.open("a", b"", 5, True)
    pending.answer("other", "stray")
    pending.answer("a", "first")
    pending.answer("a", "second")
    assert call.future.result() == "first"
    assert pending.late_replies == 2
    pending.close()


async def test_answer_to_a_cancelled_call_is_late(pending: PendingCalls) -> None:
    call = pending.open("a", b"", 5, True)
    call.future.cancel()
    pending.forget(call)
    pending.answer("a", "too late")
    assert pending.late_replies == 1
    pending.close()


async def test_forgetting_an_answered_call_leaves_the_next_of_its_id_alone(
    pending: PendingCalls,
) -> None:
    answered = pending.open("a", b"", 5, True)
    pending.answer("a", "first")
    following = pending.open("a", b"", 5, True)
    pending.forget(answered)
    pending.answer("a", "second")
    assert (answered.future.result(), following.future.result()) == ("first", "second")
    pending.close()


async def test_failing_an_answered_call_leaves_the_next_of_its_id_alone(
    pending: PendingCalls,
) -> None:
    answered = pending.open("a", b"", 5, True)
    pending.answer("a", "first")
    following = pending.open("a", b"", 5, True)
    pending.fail(answered, CommunicationError("lost"))
    assert pending.find("a") is following
    assert answered.future.result() == "first"
    pending.close()


async def test_call_past_its_deadline_times_out_and_the_others_do_not(
    pending: PendingCalls,
) -> None:
    slow = pending.open("slow", b"", 60, True)
    quick = pending.open("quick", b"", 0.05, True)
    middle = pending.open("middle", b"", 0.1, True)
    with pytest.raises(AgentTimeout, match=r"0\.05 s"):
        await quick.future
    assert not middle.future.done()
    with pytest.raises(AgentTimeout):
        await middle.future
    assert not slow.future.done()
    assert [call.request_id for call in pending] == ["slow"]
    pending.close()


async def test_timer_is_one_for_all_calls(pending: PendingCalls) -> None:
    loop = asyncio.get_running_loop()
    armed = 0
    original = loop.call_at

    def counting(when, callback, *args, **kwargs):  # type: ignore[no-untyped-def]
        nonlocal armed
        armed += callback == pending._let_answers_in
        return original(when, callback, *args, **kwargs)

    loop.call_at = counting  # type: ignore[method-assign]
    try:
        for _ in range(1000):
            call = pending.open(pending.new_id(), b"", 30, True)
            pending.answer(call.request_id, None)
    finally:
        loop.call_at = original  # type: ignore[method-assign]
    assert armed == 1
    pending.close()


async def test_same_request_id_twice_in_flight_is_refused(pending: PendingCalls) -> None:
    pending.open("mine", b"", 5, True)
    with pytest.raises(UsageError, match="mine"):
        pending.open("mine", b"", 5, True)
    pending.close()


async def test_fail_all_gives_each_call_an_error_of_its_own(pending: PendingCalls) -> None:
    opened = [pending.open(pending.new_id(), b"", 5, True) for _ in range(3)]
    pending.fail_all(lambda call: CommunicationError("gone"))
    errors = [call.future.exception() for call in opened]
    assert len({id(error) for error in errors}) == 3
    pending.close()


async def test_endless_timeout_is_taken_by_every_loop(pending: PendingCalls) -> None:
    call = pending.open("a", b"", math.inf, True)
    await asyncio.sleep(0)
    assert not call.future.done()
    pending.close()


async def test_request_ids_differ_between_clients() -> None:
    loop = asyncio.get_running_loop()
    ids = {PendingCalls(loop, unanswered).new_id() for _ in range(100)}
    assert len(ids) == 100


@pytest.mark.parametrize("timeout_secs", [0, -1, math.nan, True, "5", None])
def test_timeout_that_is_none_is_refused(timeout_secs: object) -> None:
    with pytest.raises(UsageError, match="timeout_secs"):
        checked_timeout(timeout_secs)  # type: ignore[arg-type]
