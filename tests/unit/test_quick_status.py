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
from descartes_fast._core.quick_status import answered, asked_agent
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
        assert answered(reply(), body) == reply(message.request_id), told
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
    with pytest.raises(ValueError, match="no reply"):
        answered(broken, request(str(uuid4())))
