"""The state directory: private, one server's, and cleared of agents nobody knows."""

from __future__ import annotations

import stat
import uuid
from pathlib import Path

import pytest

from descartes_fast.errors import UsageError
from descartes_fast.server.state_dir import StateDir


def test_state_dir_is_readable_by_its_user_only(tmp_path: Path) -> None:
    loose = tmp_path / "state"
    loose.mkdir(mode=0o755)
    state = StateDir(loose)
    for folder in (state.path, state.agents, state.runtime):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    state.server_id()
    assert stat.S_IMODE((loose / "server_id").stat().st_mode) == 0o600
    state.close()


def test_second_server_on_a_state_dir_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    first = StateDir(tmp_path / "state")
    with pytest.raises(UsageError, match="another server"):
        StateDir(tmp_path / "state")
    first.close()
    first.close()
    StateDir(tmp_path / "state").close()


def test_server_id_is_made_up_once(tmp_path: Path) -> None:
    first = StateDir(tmp_path / "state")
    name = first.server_id()
    first.close()
    second = StateDir(tmp_path / "state")
    assert second.server_id() == name
    second.close()


def test_leftovers_are_removed_but_nothing_else(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    agent = state.agent_directory(uuid.uuid4())
    agent.mkdir()
    (agent / "stdout").write_text("old")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (state.agents / str(uuid.uuid4())).symlink_to(outside)
    (state.agents / "not-an-id").mkdir()
    state.remove_leftovers()
    assert not agent.exists()
    assert (outside / "precious").exists()
    assert (state.agents / "not-an-id").exists()
    state.close()


def test_runtime_directory_of_a_long_path_is_a_short_private_one(tmp_path: Path) -> None:
    state = StateDir(tmp_path / ("x" * 120))
    runtime = state.runtime
    assert len(str(runtime)) < 70
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    state.close()
    assert not runtime.exists()


def test_state_dir_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot use"):
        StateDir(tmp_path / "file" / "state")
