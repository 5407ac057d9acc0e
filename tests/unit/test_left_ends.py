"""Ends that a keeper left in a file: what cannot be read costs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from descartes_fast.server.left_ends import read_ends


def end(agent_id: UUID, **fields: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "agent": str(agent_id),
        "exit_code": 5,
        "signal": None,
        "stdout": [0, 10],
        "stderr": [0, 0],
        "ended_at_ns": 1,
        "user_secs": 0.1,
        "system_secs": None,
        "max_rss_bytes": None,
    }
    return values | fields


def test_no_file_is_no_ends(tmp_path: Path) -> None:
    assert read_ends(tmp_path / "ends.json") == {}


@pytest.mark.parametrize(
    "broken", [{}, {"agent": 5}, {"agent": "x"}, 5, None, [], end(uuid4(), stdout=[1])]
)
def test_entry_that_cannot_be_read_is_left_out(
    tmp_path: Path, broken: object, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = uuid4(), uuid4()
    path = tmp_path / "ends.json"
    path.write_text(json.dumps({"ends": [end(first), broken, end(second)]}))
    assert read_ends(path).keys() == {first, second}
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"ends": 5}', '{"ends": {}}', "[" * 100_000])
def test_file_of_somebody_else_is_set_aside(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ends.json"
    path.write_text(text)
    assert read_ends(path) == {}
    assert not path.exists()
    assert (tmp_path / "ends.json.broken").read_text() == text


def test_file_that_cannot_be_opened_stays(tmp_path: Path) -> None:
    (tmp_path / "ends.json").mkdir()
    assert read_ends(tmp_path / "ends.json") == {}
    assert (tmp_path / "ends.json").is_dir()
