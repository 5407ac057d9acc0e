"""The documents tell what the code has: settings, messages in wire order, error codes."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

import descartes_fast
from descartes_fast import (
    AgentError,
    AgentStatus,
    BackendConfig,
    ControlCommandType,
    LogStreamType,
    PauseMode,
    StatusUpdateType,
    ZmqOutputStream,
    ZmqRunnerConfig,
    ZmqServerConfig,
)

_DOCS = Path(__file__).parents[2] / "docs"
_PROTOCOL = (_DOCS / "protocol.md").read_text()
_CONFIGURATION = (_DOCS / "configuration.md").read_text()

_TAGS = {"log_stream": "LogStreamMessage"}


def _rows(header: str) -> dict[str, str]:
    """Return a protocol table's rows: first cell to second, both without backticks."""
    table = _PROTOCOL.partition(f"\n| {header} |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `?(\w+)`? \| (.*?) \|", table, re.MULTILINE)
    return {name: cell.strip("`") for name, cell in rows}


def _field_names(cell: str) -> tuple[str, ...]:
    return tuple(re.match(r"\w+", part)[0] for part in cell.split(", "))  # type: ignore[index]


@pytest.mark.parametrize("config", [ZmqServerConfig, ZmqRunnerConfig, BackendConfig])
def test_every_setting_is_documented(config: type) -> None:
    for entry in fields(config):  # type: ignore[arg-type]
        assert f"`{entry.name}`" in _CONFIGURATION or entry.name == "backends", entry.name


def test_the_example_configuration_loads(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", _CONFIGURATION, re.DOTALL)
    assert example is not None
    path = tmp_path / "config.toml"
    path.write_text(example[1])
    assert ZmqServerConfig.load(path, environ={}).max_agents == 200
    assert ZmqRunnerConfig.load(path, environ={}).request_timeout_secs == 10
    assert tomllib.loads(example[1])["backends"].keys() == {"claude", "lint"}


def test_every_message_is_documented_with_its_fields_in_order() -> None:
    rows = _rows("tag | fields, in order") | _rows("struct | fields, in order")
    assert len(rows) == 15 + 4
    for name, cell in rows.items():
        class_name = _TAGS.get(name, "".join(part.title() for part in name.split("_")))
        kind = getattr(descartes_fast, class_name if "_" in name else name)
        assert _field_names(cell) == kind.__match_args__, name


def test_every_enum_is_documented_with_its_words_in_order() -> None:
    rows = _rows("enum | words")
    enums = {
        "status": AgentStatus,
        "command_type": ControlCommandType,
        "update_type": StatusUpdateType,
        "stream_type": LogStreamType,
        "stream": ZmqOutputStream,
        "pause_mode": PauseMode,
    }
    assert rows.keys() == enums.keys()
    for name, kind in enums.items():
        assert rows[name].split() == [member.value for member in kind], name


def test_every_error_code_is_documented_with_its_exception() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| `(\w+)` \|$", _PROTOCOL, re.MULTILINE)
    never_sent = {"communication", "output_gone"}
    kinds = {kind.code: kind.__name__ for kind in AgentError.__subclasses__()}
    assert dict(rows) == {code: name for code, name in kinds.items() if code not in never_sent}
