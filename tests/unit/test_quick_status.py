"""The short way from get_status to its reply, against the ordinary one."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID, uuid4

import msgpack
import pytest

from descartes_fast import (
    AgentStatus,
    CommandResponse,
    ControlCommand,
    ControlCommandType,
    HealthCheckRequest,
    deserialize_zmq_message,
    serialize_zmq_message,
)
from descartes_fast._core.quick_status import QuickReplies, asked_agent
from wire.mutations import mutations

AGENT = UUID("0123456789abcdef0123456789abcdef")


def request(request_id: str = "r-1", **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "agent_id": AGENT,
        "command_type": ControlCommandType.GET_STATUS,
        "payload": None,
    }
    return serialize_zmq_message(ControlCommand(request_id=request_id, **{**fields, **changes}))


def reply(request_id: str = "") -> bytes:
    return serialize_zmq_message(
        CommandResponse(
            request_id=request_id,
            agent_id=AGENT,
            success=True,
            status=AgentStatus.RUNNING,
            data={"seq": 2, "pid": 4711},
        )
    )


def answered(reply: bytes, request: bytes) -> bytes | None:
    """Return what is answered to a request of our agent, of whom ``reply`` was told."""
    replies = QuickReplies()
    replies.tell(AGENT.bytes, reply)
    return replies.reply_to(request)


def test_plain_request_names_its_agent() -> None:
    assert asked_agent(request()) == AGENT.bytes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x95",
        request(payload={"info": True}),
        request(command_type=ControlCommandType.KILL),
        request() + b"\0",
        request(request_id="x" * 1025),
        serialize_zmq_message(HealthCheckRequest(request_id="r")),
        reply(),
        msgpack.packb(["control_command", 7, AGENT.bytes, "get_status", None]),
        msgpack.packb(["control_command", "r", AGENT.bytes[:15], "get_status", None]),
        msgpack.packb(["control_command", "r", AGENT.bytes, "get_stat", None]),
        msgpack.packb(["control_command", "r", AGENT.bytes, "get_status"]),
        msgpack.packb(["control_command", b"\xff", AGENT.bytes, "get_status", None]).replace(
            b"\xc4\x01\xff", b"\xa1\xff"
        ),
    ],
)
def test_what_is_no_plain_request_is_left_to_others(body: bytes) -> None:
    assert asked_agent(body) is None


def test_every_part_of_a_request_is_left_to_others() -> None:
    whole = request()
    assert [asked_agent(whole[:end]) for end in range(len(whole))] == [None] * len(whole)


def test_mutated_request_is_answered_only_if_it_is_one_to_the_ordinary_way_too() -> None:
    forms = [AGENT.bytes, str(AGENT), AGENT.hex, f"{{{AGENT}}}", AGENT.urn]
    whole = [
        msgpack.packb(["control_command", request_id, form, command, None])
        for request_id in ("", "r-1", "é" * 20, "x" * 300)
        for form in forms
        for command in ("get_status", {"get_status": None}, "kill")
    ]
    seed = random.SystemRandom().randrange(2**32)
    accepted = 0
    for body in mutations(whole, seed, 20_000):
        agent_id = asked_agent(body)
        if agent_id is None:
            continue
        accepted += 1
        message: Any = deserialize_zmq_message(body)
        told = f"seed {seed}: {body.hex()}"
        assert type(message) is ControlCommand, told
        assert message.command_type is ControlCommandType.GET_STATUS, told
        assert message.agent_id.bytes == agent_id, told
        assert message.payload is None, told
        expected = reply(message.request_id) if agent_id == AGENT.bytes else None
        assert answered(reply(), body) == expected, told
    assert accepted > 200


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 1024])
def test_answer_is_the_reply_with_the_id_of_the_request(size: int) -> None:
    request_id = "r" * size
    assert answered(reply(), request(request_id)) == reply(request_id)


def test_request_id_in_another_form_is_answered_in_the_shortest() -> None:
    body = request("abc").replace(b"\xa3abc", b"\xda\0\3abc")
    assert asked_agent(body) == AGENT.bytes
    assert answered(reply(), body) == reply("abc")
    assert deserialize_zmq_message(body).request_id == "abc"  # type: ignore[union-attr]


@pytest.mark.parametrize("broken", [b"", b"\x97", reply("an id of its own"), b"\x91\xa1x"])
def test_reply_that_is_none_is_refused(broken: bytes) -> None:
    replies = QuickReplies()
    with pytest.raises(ValueError, match="no reply"):
        replies.tell(AGENT.bytes, broken)
    assert replies.reply_to(request(str(uuid4()))) is None


def test_nothing_is_answered_of_what_was_not_told_or_taken_back() -> None:
    replies = QuickReplies()
    assert replies.reply_to(request()) is None
    replies.tell(AGENT.bytes, reply())
    assert replies.reply_to(request(payload={"info": True})) is None
    assert replies.reply_to(request(agent_id=uuid4())) is None
    assert replies.reply_to(request()) == reply("r-1")
    replies.take_back(AGENT.bytes)
    replies.take_back(AGENT.bytes)
    assert replies.reply_to(request()) is None
    assert len(replies) == 0


def test_table_is_bounded_and_right_through_random_changes() -> None:
    dice = random.Random(7)
    replies, told = QuickReplies(limit=50), dict[UUID, bytes]()
    agents = [UUID(int=number) for number in range(60)]
    for _ in range(5000):
        agent_id = dice.choice(agents)
        if dice.random() < 0.3:
            replies.take_back(agent_id.bytes)
            told.pop(agent_id, None)
        else:
            if len(told) >= 50:
                told.clear()
            told[agent_id] = reply()[:-1] + bytes([dice.randrange(128)])
            replies.tell(agent_id.bytes, told[agent_id])
        assert len(replies) == len(told) <= 50
        asked = dice.choice(agents)
        expected = told.get(asked)
        answer = replies.reply_to(request("", agent_id=asked))
        assert answer == expected
