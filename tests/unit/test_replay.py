"""Which requests are remembered, and that one kind's replies do not push out another's."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from descartes_fast import (
    AgentConfig,
    BatchControlCommand,
    ControlCommand,
    ControlCommandType,
    CustomActionRequest,
    HealthCheckRequest,
    ListAgentsRequest,
    OutputQueryRequest,
    SpawnRequest,
    ZmqOutputStream,
)
from descartes_fast.server.access import LOCAL
from descartes_fast.server.replay import Replay, ReplySlot

AGENT = UUID(int=7)
SPAWN = SpawnRequest(request_id="s", config=AgentConfig(name="once"))
READ = ControlCommand(request_id="r", agent_id=AGENT, command_type=ControlCommandType.READ_STDOUT)
ACTION = CustomActionRequest(request_id="a", agent_id=AGENT, action="any")


def _slot(replay: Replay, request: Any, body: bytes) -> ReplySlot:
    slot = replay.slot(LOCAL, request, body)
    assert slot is not None
    return slot


@pytest.mark.parametrize("flooding", [READ, ACTION])
def test_flood_of_answers_with_data_leaves_the_reply_to_a_spawn(flooding: Any) -> None:
    replay = Replay(10_000, 60.0)
    spawn = _slot(replay, SPAWN, b"spawn")
    spawn.memory.keep(spawn.key, b"the one agent")
    for number in range(100):
        slot = _slot(replay, flooding, b"%d" % number)
        slot.memory.keep(slot.key, b"x" * 1000)
    again = _slot(replay, SPAWN, b"spawn")
    assert again.memory.recall(again.key) == b"the one agent"


@pytest.mark.parametrize(
    "request_",
    [
        HealthCheckRequest(request_id="1"),
        ListAgentsRequest(request_id="1"),
        OutputQueryRequest(request_id="1", agent_id=AGENT, stream=ZmqOutputStream.BOTH),
        ControlCommand(request_id="1", agent_id=AGENT, command_type=ControlCommandType.GET_STATUS),
        ControlCommand(
            request_id="1",
            agent_id=AGENT,
            command_type=ControlCommandType.READ_STDERR,
            payload={"offset": 0},
        ),
        BatchControlCommand(
            request_id="1", agent_ids=[AGENT], command_type=ControlCommandType.GET_STATUS
        ),
    ],
)
def test_request_that_changes_nothing_is_made_anew(request_: Any) -> None:
    replay = Replay(10_000, 60.0)
    assert replay.slot(LOCAL, request_, b"body") is None
    assert not replay.covers(request_)
