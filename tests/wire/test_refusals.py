"""What is refused says where: the offset in the bytes and the path of the field."""

from __future__ import annotations

import pickle
from typing import Any
from uuid import UUID

import msgpack
import pytest

from descartes_fast import (
    MAX_MESSAGE_SIZE,
    LogStreamMessage,
    LogStreamType,
    MessageTooLarge,
    ProtocolError,
    deserialize_zmq_message,
    serialize_zmq_message,
    validate_message_size,
)
from wire.cases import VECTORS

AGENT = bytes(range(16))
INFO = [AGENT, "n", "running", "claude", [1, 2], "t"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (["spawn_request", 1, []], "spawn_request.request_id"),
        (["spawn_request", "r", 5], "spawn_request.config"),
        (["spawn_request", "r", [1]], "spawn_request.config.name"),
        (["spawn_request", "r", ["", "", "", None, None, 5]], "spawn_request.config.environment"),
        (
            ["spawn_request", "r", ["", "", "", None, None, {"A": 1}]],
            "spawn_request.config.environment",
        ),
        (["spawn_request", "r", {"environment": 7}], "spawn_request.config.environment"),
        (
            ["spawn_response", "r", True, [*INFO, None, None, ["u", "t", 2**63]]],
            "spawn_response.agent_info.attach_info.expires_at",
        ),
        (["list_agents_response", "r", True, [INFO, 5]], "list_agents_response.agents[1]"),
        (
            ["list_agents_response", "r", True, [INFO, INFO, [*INFO[:2], "gone", *INFO[3:]]]],
            "list_agents_response.agents[2].status",
        ),
        (["list_agents_response", "r", True, [INFO[:3]]],
         "list_agents_response.agents[0].model_backend"),
        (["batch_control_command", "r", [AGENT, b"short"], "stop"],
         "batch_control_command.agent_ids[1]"),
        (["output_query_response", "r", AGENT, True, ["a", 1]], "output_query_response.lines[1]"),
        (["control_command", "r", AGENT, "pause", b"bytes"], "control_command.payload"),
        (["control_command", "r"], "control_command.agent_id"),
        (["log_stream", AGENT, "stdout", [1, 256], [0, 0], 0], "log_stream.data[1]"),
        (["status_update", AGENT, "error", None, None, None, [1]], "status_update.timestamp"),
        ({"type": "health_check_request"}, "health_check_request.request_id"),
        (["health_check_request", "r", 5], "health_check_request"),
        (["no_such_type"], "type"),
        ([7], "type"),
    ],
)  # fmt: skip
def test_broken_field_is_named_with_its_path_and_offset(body: Any, path: str) -> None:
    data = msgpack.packb(body)
    with pytest.raises(ProtocolError) as caught:
        deserialize_zmq_message(data)
    assert caught.value.path == path
    assert 0 < caught.value.offset <= len(data)
    assert str(caught.value).startswith(f"{path}: ")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.path, again.offset) == (caught.value.path, caught.value.offset)


def test_offset_is_that_of_the_value_that_was_refused() -> None:
    data = msgpack.packb(["control_command", "r", AGENT, "pause", {"a": [1, b"x"]}])
    with pytest.raises(ProtocolError) as caught:
        deserialize_zmq_message(data)
    assert data[caught.value.offset] == 0xC4
    data = msgpack.packb(["health_check_request", "r"]) + b"\xc0"
    with pytest.raises(ProtocolError) as caught:
        deserialize_zmq_message(data)
    assert caught.value.offset == len(data) - 1


@pytest.mark.parametrize("form", ["hex", "hex_named"])
def test_message_cut_at_any_byte_is_refused(form: str) -> None:
    for line in VECTORS:
        data = bytes.fromhex(line.get(form, ""))
        for cut in range(len(data)):
            with pytest.raises(ProtocolError) as caught:
                deserialize_zmq_message(data[:cut])
            assert caught.value.offset <= cut


def test_message_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(MessageTooLarge) as caught:
        deserialize_zmq_message(b"\xc1" * (MAX_MESSAGE_SIZE + 1))
    assert (caught.value.size, caught.value.limit) == (MAX_MESSAGE_SIZE + 1, MAX_MESSAGE_SIZE)
    with pytest.raises(MessageTooLarge):
        deserialize_zmq_message(bytearray(MAX_MESSAGE_SIZE + 1))
    with pytest.raises(ProtocolError) as refused:
        deserialize_zmq_message(b"\xc1" * MAX_MESSAGE_SIZE)
    assert not isinstance(refused.value, MessageTooLarge)


def test_message_over_the_limit_is_not_written() -> None:
    message = LogStreamMessage(
        agent_id=UUID(int=0),
        stream_type=LogStreamType.STDOUT,
        data=b"\xff" * (MAX_MESSAGE_SIZE // 2),
        sequence=0,
    )
    with pytest.raises(MessageTooLarge):
        serialize_zmq_message(message)


def test_size_is_checked_by_itself() -> None:
    validate_message_size(0)
    validate_message_size(MAX_MESSAGE_SIZE)
    with pytest.raises(MessageTooLarge):
        validate_message_size(MAX_MESSAGE_SIZE + 1)


@pytest.mark.parametrize("wrap", [bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_any_buffer_is_read(wrap: Any) -> None:
    data = bytes.fromhex(VECTORS[0]["hex"])
    assert deserialize_zmq_message(wrap(data)) == deserialize_zmq_message(data)


def test_message_does_not_change_with_the_buffer_it_came_in() -> None:
    line = next(line for line in VECTORS if line["name"] == "control_command/write_stdin")
    data = bytearray.fromhex(line["hex"])
    message = deserialize_zmq_message(data)
    data[:] = bytes(len(data))
    assert message.payload == line["message"]["payload"]  # type: ignore[union-attr]


@pytest.mark.parametrize("data", [None, "text", 7, [1]])
def test_what_is_no_buffer_is_a_type_error(data: Any) -> None:
    with pytest.raises(TypeError):
        deserialize_zmq_message(data)


def test_refusal_leaves_nothing_behind() -> None:
    good = bytes.fromhex(VECTORS[1]["hex"])
    expected = deserialize_zmq_message(good)
    for cut in range(len(good)):
        with pytest.raises(ProtocolError):
            deserialize_zmq_message(good[:cut])
        assert deserialize_zmq_message(good) == expected
