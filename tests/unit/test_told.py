"""What a subscriber to status updates was told: what is news, and who has not ended."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from descartes_fast import (
    AgentStatus,
    LogStreamMessage,
    LogStreamType,
    StatusUpdate,
    StatusUpdateType,
    deserialize_zmq_message,
    serialize_zmq_message,
)
from descartes_fast._core.told import Told, seq_of

FIRST, SECOND = uuid.uuid4(), uuid.uuid4()


def update(agent_id: uuid.UUID, status: AgentStatus | None, data: Any = None) -> StatusUpdate:
    made = StatusUpdate(
        agent_id=agent_id, update_type=StatusUpdateType.STATUS_CHANGED, status=status, data=data
    )
    received = deserialize_zmq_message(serialize_zmq_message(made))
    assert isinstance(received, StatusUpdate)
    return received


@pytest.mark.parametrize("status", AgentStatus)
def test_agent_is_active_until_it_has_ended(status: AgentStatus) -> None:
    told = Told()
    assert told.active() == set()
    running, changed = update(FIRST, AgentStatus.RUNNING), update(FIRST, status)
    assert told.news([running, update(SECOND, AgentStatus.RUNNING)]) != []
    assert told.active() == {FIRST, SECOND}
    assert told.news([update(SECOND, None), changed]) != []
    assert told.active() == ({SECOND} if status.is_terminal else {FIRST, SECOND})


def test_snapshot_entries_count_as_told() -> None:
    told = Told()
    told.tell(update(FIRST, AgentStatus.PAUSED))
    told.tell(update(SECOND, AgentStatus.PAUSED))
    told.tell(update(SECOND, AgentStatus.FAILED))
    told.tell(update(FIRST, None))
    assert told.active() == {FIRST}


def test_what_a_snapshot_has_is_no_news_and_not_noted() -> None:
    told = Told()
    told.begin({FIRST: 5, SECOND: 2})
    old = [update(FIRST, AgentStatus.RUNNING, {"seq": seq}) for seq in (3, 5)]
    new = [update(FIRST, AgentStatus.PAUSED, {"seq": seq}) for seq in (6, 4)]
    other = update(SECOND, AgentStatus.RUNNING, {"seq": 3})
    unnumbered = update(SECOND, AgentStatus.RUNNING, {"seq": True})
    assert told.news(old) == []
    assert told.active() == set()
    # What follows one that is news is news, whatever its number.
    assert told.news([*old, *new, unnumbered, other]) == [*new, unnumbered, other]
    assert told.news(old) == old


def test_what_is_no_update_is_no_news() -> None:
    log = LogStreamMessage(agent_id=FIRST, stream_type=LogStreamType.STDOUT, data=b"x", sequence=0)
    known = update(FIRST, None)
    told = Told()
    assert told.news([log, known, log]) == [known]
    assert told.active() == set()


@pytest.mark.parametrize(
    ("data", "seq"),
    [({"seq": 3}, 3), ({"seq": "3"}, None), ({"seq": True}, None), ({}, None), (None, None)],
)
def test_number_of_an_update(data: Any, seq: int | None) -> None:
    assert seq_of(update(FIRST, None, data)) == seq


@pytest.mark.parametrize("data", [[1], 7, "seq"])
def test_update_with_other_data_has_no_number(data: Any) -> None:
    assert seq_of(update(FIRST, None, data)) is None


@pytest.mark.parametrize("other", [None, 7, object()])
def test_only_messages_can_be_told(other: Any) -> None:
    told = Told()
    assert told.news([other]) == []
    with pytest.raises(TypeError):
        told.tell(other)
