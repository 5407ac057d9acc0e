"""Long text with wide characters is kept as it came; the message behaves like any other."""

from __future__ import annotations

import copy
import pickle
from typing import Any
from uuid import UUID

import pytest

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    FieldError,
    ListAgentsResponse,
    ProtocolError,
    SpawnRequest,
    SpawnResponse,
    ZmqMessage,
    deserialize_zmq_message,
    from_builtins,
    replace,
    serialize_zmq_message,
    to_builtins,
)

WIDE = "ab" * 50_000 + "😀"


def request(**changes: Any) -> SpawnRequest:
    fields: dict[str, Any] = {
        "name": "n",
        "task": WIDE,
        "environment": {"A": "1"},
        "agents": {"r": {"d": 1}},
    }
    return SpawnRequest(request_id="r", config=AgentConfig(**(fields | changes)), timeout_secs=5)


def test_decoded_message_is_like_the_one_that_was_written() -> None:
    made = request()
    wire = serialize_zmq_message(made)
    found: Any = deserialize_zmq_message(wire)
    assert found == made
    assert made == found
    assert found == deserialize_zmq_message(wire)
    assert found != request(task=WIDE[:-1])
    assert request(task="short") != found
    assert isinstance(found, SpawnRequest)
    assert isinstance(found, ZmqMessage)  # type: ignore[arg-type]
    assert isinstance(found.config, AgentConfig)
    assert type(found).__name__ == "SpawnRequest"
    assert found.config.task == WIDE
    assert found.config.task is found.config.task
    assert (found.request_id, found.config.name, found.config.context) == ("r", "n", None)
    assert (found.config.environment, found.config.agents) == ({"A": "1"}, {"r": {"d": 1}})
    assert repr(found) == repr(made)
    assert to_builtins(found) == to_builtins(made)
    assert from_builtins(to_builtins(found)) == found
    assert serialize_zmq_message(found) == wire
    assert pickle.loads(pickle.dumps(found)) == copy.copy(found) == found


def test_decoded_message_is_replaced_and_put_into_others() -> None:
    found: Any = deserialize_zmq_message(serialize_zmq_message(request()))
    assert replace(found, timeout_secs=5) == found
    assert replace(found, request_id="s").config.task == WIDE
    assert replace(found.config, task="short") == request(task="short").config
    assert SpawnRequest(request_id="r", config=found.config, timeout_secs=5) == found
    with pytest.raises(FieldError):
        replace(found.config, task=1)
    with pytest.raises(FieldError):
        SpawnRequest(request_id="r", config=found)
    match found:
        case SpawnRequest(config=AgentConfig(task=task)):
            assert task == WIDE
        case _:
            pytest.fail("no match")
    assert type(found)(request_id="x", config=AgentConfig()).request_id == "x"


def test_records_in_lists_and_parts_may_be_wide() -> None:
    info = AgentInfo(
        id=UUID(int=1), name="n", status=AgentStatus.IDLE, model_backend="b", task=WIDE,
        started_at=7,
    )  # fmt: skip
    listed = ListAgentsResponse(request_id="r", success=True, agents=[info, info], error=WIDE)
    found: Any = deserialize_zmq_message(serialize_zmq_message(listed))
    assert found == listed
    assert found.agents == (info, info)
    assert ListAgentsResponse(request_id="r", success=True, agents=found.agents).agents[0] == info
    response = SpawnResponse(request_id="r", success=True, agent_info=info, server_id=WIDE)
    again: Any = deserialize_zmq_message(serialize_zmq_message(response))
    assert again == response
    assert again.agent_info.started_at_ns == 7
    assert pickle.loads(pickle.dumps(again.agent_info)) == info
    assert from_builtins(to_builtins(info), AgentInfo) == info


def test_broken_text_behind_wide_text_is_refused_with_its_place() -> None:
    wire = serialize_zmq_message(request())
    with pytest.raises(ProtocolError) as caught:
        deserialize_zmq_message(wire[:-1] + b"\xc1")
    assert caught.value.path == "spawn_request.metadata"
    at = wire.index("😀".encode())
    with pytest.raises(ProtocolError) as caught:
        deserialize_zmq_message(wire[:at] + b"\xff" + wire[at + 1 :])
    assert caught.value.path == "spawn_request.config.task"


def test_named_form_may_be_wide() -> None:
    import msgpack

    made = request()
    found = deserialize_zmq_message(msgpack.packb(to_builtins(made)))
    assert found == made
    assert serialize_zmq_message(found) == serialize_zmq_message(made)
