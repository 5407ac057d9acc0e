"""What messages do as Python objects: equality, repr, replacing, pickling, matching."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import descartes_fast
from descartes_fast import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    ControlCommand,
    ControlCommandType,
    FieldError,
    SpawnRequest,
    ZmqMessage,
    deserialize_zmq_message,
    from_builtins,
    peek_header,
    replace,
    serialize_zmq_message,
    to_builtins,
)
from wire.cases import VECTORS

FULL = [line for line in VECTORS if len(line["hex"]) < 4096]
PAUSE = next(line for line in FULL if line["name"] == "control_command/pause")


def messages() -> list[Any]:
    return [pytest.param(line["message"], id=line["name"]) for line in FULL]


@pytest.mark.parametrize("form", messages())
def test_pickled_message_comes_back_equal(form: dict[str, Any]) -> None:
    message = from_builtins(form)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(message, protocol))
        assert again == message
        assert type(again) is type(message)
    assert copy.copy(message) == copy.deepcopy(message) == message


@pytest.mark.parametrize("form", messages())
def test_repr_is_the_call_that_makes_an_equal_message(form: dict[str, Any]) -> None:
    message = from_builtins(form)
    import datetime
    import uuid

    names = vars(descartes_fast) | {"datetime": datetime, "UUID": uuid.UUID}
    text = repr(message)
    for kind in ("AgentStatus", "ControlCommandType", "StatusUpdateType", "LogStreamType",
                 "ZmqOutputStream", "PauseMode"):  # fmt: skip
        for member in getattr(descartes_fast, kind):
            text = text.replace(repr(member), f"{kind}.{member.name}")
    again = eval(text, names)
    # A datetime has no nanoseconds; everything else is said in full.
    assert cut(to_builtins(again)) == cut(to_builtins(message))


def cut(form: Any) -> Any:
    if isinstance(form, dict):
        return {
            key: value // 1000 if key == "nanos_since_epoch" else cut(value)
            for key, value in form.items()
        }
    return [cut(item) for item in form] if isinstance(form, list) else form


@pytest.mark.parametrize("form", messages())
def test_each_field_counts_for_equality(form: dict[str, Any]) -> None:
    message = from_builtins(form)
    assert message == from_builtins(form)
    for name, value in form.items():
        for other in ({"name": "other"}, "other", 7, True, False, None, [], "idle", "both", {},
                      ["00000000-0000-0000-0000-000000000001"],
                      "00000000-0000-0000-0000-000000000001"):  # fmt: skip
            if name == "type":
                continue
            try:
                changed = from_builtins(form | {name: other})
            except descartes_fast.ProtocolError:
                continue
            assert (message == changed) == (to_builtins(message) == to_builtins(changed))
            assert (message != changed) == (value != to_builtins(changed)[name])


def test_messages_of_different_types_are_not_equal() -> None:
    assert AgentConfig() != {}
    assert AgentConfig() != from_builtins({"type": "health_check_request", "request_id": ""})
    with pytest.raises(TypeError):
        AgentConfig() < AgentConfig()  # type: ignore[operator]  # noqa: B015


def test_message_is_not_hashable() -> None:
    with pytest.raises(TypeError):
        hash(AgentConfig())


def test_replace_changes_only_the_named_fields() -> None:
    request = SpawnRequest(
        request_id="r", config=AgentConfig(name="n", environment={"A": "1"}), metadata={"k": "v"}
    )
    changed = replace(request, request_id="s", metadata=None)
    assert changed == SpawnRequest(request_id="s", config=request.config)
    assert request.metadata == {"k": "v"}
    assert replace(request) == request
    assert request.__replace__(request_id="s").metadata == {"k": "v"}


def test_replace_refuses_what_the_constructor_refuses() -> None:
    config = AgentConfig()
    with pytest.raises(FieldError) as caught:
        replace(config, name=1)
    assert caught.value.path == "agent_config.name"
    with pytest.raises(FieldError):
        replace(config, nothing=1)
    with pytest.raises(FieldError):
        replace("text", name="n")
    with pytest.raises(FieldError):
        config.__replace__(1)  # type: ignore[call-arg]


def test_match_takes_fields_by_name_and_by_place() -> None:
    command: ZmqMessage = deserialize_zmq_message(bytes.fromhex(PAUSE["hex"]))
    match command:
        case ControlCommand(command_type=ControlCommandType.PAUSE, payload={"force": force}):
            assert force is True
        case _:
            pytest.fail("no match by name")
    match command:
        case ControlCommand(request_id, agent_id):
            assert request_id == command.request_id
            assert agent_id == command.agent_id
        case _:
            pytest.fail("no match by place")


def test_union_of_the_messages_tells_them_from_their_parts() -> None:
    request = SpawnRequest(request_id="r", config=AgentConfig())
    assert isinstance(request, ZmqMessage)  # type: ignore[arg-type]
    assert not isinstance(request.config, ZmqMessage)  # type: ignore[arg-type]
    with pytest.raises(FieldError):
        serialize_zmq_message(request.config)  # type: ignore[arg-type]


def test_json_form_of_a_part_has_no_type_and_comes_back() -> None:
    line = next(line for line in FULL if line["name"] == "spawn_response/attach_info")
    form = line["message"]["agent_info"]
    info = from_builtins(form, AgentInfo)
    assert info.status is AgentStatus.PAUSED
    assert to_builtins(info) == form
    with pytest.raises(FieldError):
        from_builtins(form, dict)  # type: ignore[type-var]
    with pytest.raises(FieldError):
        from_builtins([form])  # type: ignore[call-overload]
    with pytest.raises(FieldError):
        to_builtins(form)  # type: ignore[arg-type]


def test_json_form_with_a_deep_payload_comes_back() -> None:
    deepest: Any = None
    for _ in range(128):
        deepest = [deepest]
    form = to_builtins(from_builtins(PAUSE["message"] | {"payload": deepest}))
    assert form["payload"] == deepest
    with pytest.raises(descartes_fast.ProtocolError):
        from_builtins(PAUSE["message"] | {"payload": [deepest]})


def test_status_knows_what_is_terminal_and_what_is_active() -> None:
    assert {s.value for s in AgentStatus if s.is_terminal} == {
        "completed",
        "failed",
        "terminated",
    }
    assert {s.value for s in AgentStatus if s.is_active} == {
        "initializing",
        "running",
        "thinking",
    }
    assert AgentStatus("running") is AgentStatus.RUNNING


@pytest.mark.parametrize(
    ("data", "head"),
    [
        (bytes.fromhex("93a3666f6fa27231"), ("foo", "r1")),
        (bytes.fromhex("92af636f6e74726f6c5f636f6d6d616e64a27231"), ("control_command", "r1")),
        (bytes.fromhex("91a3666f6f"), ("foo", None)),
        (bytes.fromhex("92a3666f6fc0"), ("foo", None)),
        (bytes.fromhex("82aa726571756573745f6964a27231a474797065a3666f6f"), ("foo", "r1")),
        (bytes.fromhex("83a474797065a3666f6faa726571756573745f6964a27231a178"), ("foo", "r1")),
        (bytes.fromhex("81aa726571756573745f6964a27231"), None),
        (b"", None),
        (b"\x90", None),
        (b"\xc1", None),
        (b"\x93\x07", None),
        (b"\x92\xa2\xff\xfe\xa1r", None),
        (b"\x91" + b"x" * (10 * 1024 * 1024), None),
        (object(), None),
        ("text", None),
    ],
)
def test_head_of_a_broken_message_is_read_where_it_can_be(data: Any, head: Any) -> None:
    assert peek_header(data) == head


def test_status_update_shows_no_request_id() -> None:
    line = next(line for line in FULL if line["name"] == "status_update/error")
    assert peek_header(bytes.fromhex(line["hex"])) == ("status_update", None)


def test_classes_are_final_and_sealed() -> None:
    with pytest.raises(TypeError):
        type("Derived", (AgentConfig,), {})
    with pytest.raises(TypeError):
        AgentConfig.name = "x"  # type: ignore[misc, assignment]
    with pytest.raises(TypeError):
        object.__new__(AgentConfig)
    with pytest.raises(TypeError):
        AgentConfig().__class__ = AgentInfo  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        type(AgentConfig()).name.__set__(AgentConfig(), "x")  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        AgentInfo.name.__get__(AgentConfig())  # type: ignore[attr-defined]
    with pytest.raises(FieldError):
        AgentInfo.__new__(AgentInfo)
    with pytest.raises(TypeError):
        AgentConfig.__repr__(AgentInfo)  # type: ignore[arg-type]
