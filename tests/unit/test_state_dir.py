"""The state directory: private, one server's, and cleared of agents nobody knows."""

from __future__ import annotations

import socket
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from descartes_fast.errors import UsageError
from descartes_fast.server.keeper_process import start_keeper
from descartes_fast.server.state_dir import StateDir


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose name leaves room for a socket below it, wherever pytest's own is."""
    with tempfile.TemporaryDirectory(prefix="dfast-", dir="/tmp") as folder:
        yield Path(folder)


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


@pytest.mark.parametrize("text", [b"", b"\xff", b"two\nlines", b"x" * 1000])
def test_server_id_that_is_no_name_is_made_anew(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "server_id").write_bytes(text)
    state = StateDir(tmp_path)
    name = state.server_id()
    assert name == state.server_id()
    assert len(name) < 256
    assert name.isprintable()
    state.close()


def test_server_id_is_neither_read_nor_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "server_id").symlink_to(target)
    state = StateDir(folder)
    assert state.server_id() != "precious"
    assert target.read_text() == "precious"
    state.close()


@pytest.mark.parametrize("name", ["agents", "run"])
@pytest.mark.parametrize("planted", ["link", "file"])
def test_planted_link_or_file_is_refused_and_what_it_leads_to_stays(
    short_path: Path, name: str, planted: str
) -> None:
    outside = short_path / "outside"
    (outside / str(uuid.uuid4())).mkdir(parents=True)
    folder = short_path / "state"
    folder.mkdir(mode=0o777)
    if planted == "link":
        (folder / name).symlink_to(outside)
    else:
        (folder / name).touch()
    with pytest.raises(UsageError, match="not a directory of this user"):
        StateDir(folder)
    assert len(list(outside.iterdir())) == 1
    (folder / name).unlink()
    StateDir(folder).close()


def test_keepers_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    with tempfile.TemporaryDirectory(prefix="dfast-") as runtime:
        (Path(runtime) / "keeper.log").symlink_to(target)
        with pytest.raises(UsageError, match="keeper's log"):
            start_keeper(Path(runtime), "0123456789abcdef")
    assert target.read_text() == "precious"


def test_directories_that_were_open_to_others_are_closed(tmp_path: Path) -> None:
    for name in ("agents", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    state = StateDir(tmp_path)
    for folder in (state.agents, state.runtime):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    state.close()


def test_sockets_of_keepers_that_are_gone_are_removed(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="dfast-") as short:
        state = StateDir(Path(short))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(state.runtime / "keeper-12345678.sock"))
        (state.runtime / "keeper-notes.sock").write_text("no socket")
        state.remove_leftovers()
        assert [path.name for path in state.runtime.iterdir()] == ["keeper-notes.sock"]
        state.close()


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
