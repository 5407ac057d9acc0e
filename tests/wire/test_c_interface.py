"""The core's C-level interface, as another extension module cimports it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import descartes_fast
from descartes_fast import (
    ControlCommandType,
    MessageTooLarge,
    ProtocolError,
    deserialize_zmq_message,
    serialize_zmq_message,
)
from wire.cases import VECTORS

EXAMPLE = Path(__file__).parent / "cimport_example" / "relay.pyx"
PACKAGE_ROOT = Path(descartes_fast.__file__).parent.parent

BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    name="relay",
    script_args=["build_ext", "--build-lib", sys.argv[1], "--build-temp", sys.argv[1] + "/temp"],
    ext_modules=cythonize(
        [Extension("relay", [sys.argv[2]])], build_dir=sys.argv[1], include_path=[sys.argv[3]]
    ),
)
"""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    pytest.importorskip("Cython", reason="the example is compiled with Cython")
    pytest.importorskip("setuptools", reason="the example is built with setuptools")
    folder = tmp_path_factory.mktemp("relay")
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder), str(EXAMPLE), str(PACKAGE_ROOT)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    spec = importlib.util.spec_from_file_location("relay", folder / f"relay{suffix}")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wire(name: str, form: str = "hex") -> bytes:
    return bytes.fromhex(next(line for line in VECTORS if line["name"] == name)[form])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", ["hex", "hex_named"])
def test_head_is_read_without_a_message(relay: ModuleType, form: str) -> None:
    data = wire("control_command/write_stdin", form)
    message: Any = deserialize_zmq_message(data)
    tag, request_id, agent_id, command = relay.head_of(data)
    assert tag == b"control_command"
    assert request_id.decode() == message.request_id
    assert agent_id == message.agent_id.bytes
    assert list(ControlCommandType)[command] is ControlCommandType.WRITE_STDIN


def test_head_of_a_batch_has_the_command_behind_the_ids(relay: ModuleType) -> None:
    tag, request_id, agent_id, command = relay.head_of(wire("batch_control_command/three"))
    assert tag == b"batch_control_command"
    assert request_id is not None
    assert agent_id is None
    assert list(ControlCommandType)[command] is ControlCommandType.PAUSE


def test_head_of_a_cut_message_is_what_came_before_the_cut(relay: ModuleType) -> None:
    data = wire("control_command/write_stdin")
    whole = relay.head_of(data)
    seen = {relay.head_of(data[:cut]) for cut in range(len(data) + 1)}
    tag, request_id, agent_id, _ = whole
    assert seen == {
        None,
        (tag, None, None, -1),
        (tag, request_id, None, -1),
        (tag, request_id, agent_id, -1),
        whole,
    }


def test_message_inside_a_frame_outlives_the_name_of_the_frame(relay: ModuleType) -> None:
    data = wire("control_command/custom_action")
    frame = b"topic\0" + data + b"rest"
    message = relay.message_inside(frame, 6, 6 + len(data))
    del frame
    assert message == deserialize_zmq_message(data)
    assert relay.message_copied(data) == message
    with pytest.raises(ProtocolError):
        relay.message_inside(data, 1, len(data))


def test_frame_is_written_behind_its_topic(relay: ModuleType) -> None:
    data = wire("log_stream/ascii")
    message = deserialize_zmq_message(data)
    assert relay.published(b"topic", message) == b"topic\0" + data
    assert serialize_zmq_message(message, prefix=b"topic\0") == b"topic\0" + data
    with pytest.raises(descartes_fast.FieldError):
        relay.published(b"topic", "text")


def test_messages_are_written_one_behind_the_other(relay: ModuleType) -> None:
    messages = [
        deserialize_zmq_message(bytes.fromhex(line["hex"]))
        for line in VECTORS
        if len(line["hex"]) < 5000
    ]
    data, ends = relay.batched(messages)
    begins = [0, *ends[:-1]]
    for message, begin, end in zip(messages, begins, ends, strict=True):
        assert data[begin:end] == serialize_zmq_message(message)
    assert ends[-1] == len(data)


def test_message_over_the_limit_is_refused_from_c_too(relay: ModuleType) -> None:
    with pytest.raises(MessageTooLarge):
        relay.message_copied(bytes(descartes_fast.MAX_MESSAGE_SIZE + 1))
