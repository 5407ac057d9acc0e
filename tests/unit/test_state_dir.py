"""The state directory: private, one server's, and cleared of agents nobody knows."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from descartes_fast.errors import UsageError
from descartes_fast.server import state_dir
from descartes_fast.server.keeper_process import KeeperPlace
from descartes_fast.server.locks import lock_file
from descartes_fast.server.state_dir import StateDir, runtime_directory


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
            KeeperPlace(Path(runtime)).start("0123456789abcdef")
    assert target.read_text() == "precious"


def test_directories_that_were_open_to_others_are_closed(tmp_path: Path) -> None:
    for name in ("agents", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    state = StateDir(tmp_path)
    for folder in (state.agents, state.runtime):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    state.close()


def test_output_of_unknown_agents_is_removed_but_nothing_else(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    known, unknown = uuid.uuid4(), uuid.uuid4()
    for agent in (known, unknown):
        Path(state.agent_directory(agent)).mkdir()
        (Path(state.agent_directory(agent)) / "stdout").write_text("old")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (state.agents / str(uuid.uuid4())).symlink_to(outside)
    (state.agents / "not-an-id").mkdir()
    state.remove_unknown({known})
    assert (Path(state.agent_directory(known)) / "stdout").read_text() == "old"
    assert not Path(state.agent_directory(unknown)).exists()
    assert (outside / "precious").exists()
    assert (state.agents / "not-an-id").exists()
    state.close()


def test_runtime_directory_of_a_long_path_is_a_short_private_one(tmp_path: Path) -> None:
    state = StateDir(tmp_path / ("x" * 120))
    runtime = state.runtime
    assert len(str(runtime)) < 90
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    state.close()
    assert runtime.exists()  # a keeper may be there for the next server
    again = StateDir(tmp_path / ("x" * 120))
    assert again.runtime == runtime
    again.remove_runtime()
    assert not runtime.exists()
    again.close()


def test_runtime_directories_of_two_long_paths_differ(tmp_path: Path) -> None:
    states = [StateDir(tmp_path / (letter * 120)) for letter in "xy"]
    assert len({state.runtime for state in states}) == 2
    for state in states:
        state.remove_runtime()
        state.close()


@pytest.mark.parametrize("planted", ["link", "file"])
def test_planted_runtime_directory_of_a_long_path_is_refused(
    tmp_path: Path, short_path: Path, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    state = StateDir(tmp_path / ("x" * 120))
    assert state.runtime.parent == short_path
    state.remove_runtime()
    state.close()
    if planted == "link":
        state.runtime.symlink_to(tmp_path)
    else:
        state.runtime.touch()
    with pytest.raises(UsageError, match="not a directory of this user"):
        StateDir(tmp_path / ("x" * 120))


def test_runtime_directory_elsewhere_is_found_again_whatever_the_environment_says(
    tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short_path / "first").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path / "first"))
    state = StateDir(tmp_path / ("x" * 120))
    state.close()
    assert state.runtime.parent == short_path / "first"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    again = StateDir(tmp_path / ("x" * 120))
    again.close()
    assert again.runtime == state.runtime == runtime_directory(again.path)
    shutil.rmtree(short_path / "first")  # as at the end of a login: no keeper can be reached there
    third = StateDir(tmp_path / ("x" * 120))
    assert third.runtime.parent == short_path
    third.close()


def test_runtime_base_that_does_not_exist_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/no/such/directory")
    state = StateDir(tmp_path / ("x" * 120))
    assert state.runtime.is_dir()
    state.remove_runtime()
    state.close()


@pytest.mark.parametrize("name", ["keeper.sock", "ends.json"])
def test_runtime_directory_elsewhere_stays_while_it_is_needed(tmp_path: Path, name: str) -> None:
    state = StateDir(tmp_path / ("x" * 120))
    (state.runtime / name).touch()
    state.remove_runtime()
    assert (state.runtime / name).exists()
    (state.runtime / name).unlink()
    with_lock = lock_file(state.runtime / "keeper.lock")
    state.remove_runtime()
    assert state.runtime.exists()
    os.close(with_lock)
    state.remove_runtime()
    assert not state.runtime.exists()
    state.close()


@pytest.mark.parametrize("name", ["x", "x" * 120])
def test_copy_of_a_state_directory_has_nothing_to_do_with_the_agents_of_the_original(
    tmp_path: Path, short_path: Path, name: str
) -> None:
    base = short_path if len(name) == 1 else tmp_path
    original = StateDir(base / name)
    original.note_boot()
    instance = original.instance("0" * 16)
    original.close()
    shutil.copytree(base / name, base / f"{name}-copy", symlinks=True)
    (base / name).rename(base / f"{name}-moved")
    copy, moved = StateDir(base / f"{name}-copy"), StateDir(base / f"{name}-moved")
    assert moved.why_agents_are_gone() is None
    assert moved.instance("0" * 16) == instance
    assert "copy" in str(copy.why_agents_are_gone())
    assert copy.instance("0" * 16) != instance
    assert copy.runtime != moved.runtime
    copy.note_boot()
    assert copy.why_agents_are_gone() is None
    for state in (copy, moved):
        state.remove_runtime()
        state.close()


def test_note_that_the_disk_refuses_is_left_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("full")

    state = StateDir(tmp_path / "state")
    monkeypatch.setattr(state_dir, "write_private", refuse)
    state.note_boot()
    state.close()


def test_runtime_directory_inside_the_state_directory_stays(short_path: Path) -> None:
    state = StateDir(short_path / "state")
    state.remove_runtime()
    assert state.runtime == short_path / "state" / "run"
    assert state.runtime.exists()
    state.close()


def test_restart_of_the_machine_is_noticed_until_it_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot"
    monkeypatch.setattr(state_dir, "_BOOT_ID_PATH", boot)
    state = StateDir(tmp_path / "state")
    answers = []
    for words in ("first\n", "first\n", "second\n"):
        boot.write_text(words)
        answers.append(state.why_agents_are_gone() is not None)
        state.note_boot()
        answers.append(state.why_agents_are_gone() is not None)
    assert answers == [False, False, False, False, True, False]
    boot.unlink()  # not Linux: nothing is known, nothing is claimed
    assert state.why_agents_are_gone() is None
    state.note_boot()
    state.close()


def test_state_dir_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot use"):
        StateDir(tmp_path / "file" / "state")


def test_output_of_agents_is_removed_whatever_there_is_of_it(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    silent, wordy, never_started, kept = (uuid.uuid4() for _ in range(4))
    for agent_id in (silent, wordy, kept):
        Path(state.agent_directory(agent_id)).mkdir()
    (Path(state.agent_directory(wordy)) / "stdout").write_bytes(b"words")
    state.remove_agents([silent, wordy, never_started])
    spare = state.spare_directory()
    assert spare is not None
    assert {state.agents / name for name in os.listdir(state.agents)} == {
        Path(state.agent_directory(kept)),
        Path(spare),
    }
    assert (state.spare_directory(), os.listdir(spare)) == (None, [])
    state.close()


def test_spare_directories_are_few_and_gone_with_the_next_server(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    agent_ids = [uuid.uuid4() for _ in range(300)]
    for agent_id in agent_ids:
        Path(state.agent_directory(agent_id)).mkdir()
    state.remove_agents(agent_ids)
    assert len(os.listdir(state.agents)) == 256
    state.remove_unknown([])
    assert os.listdir(state.agents) == []
    state.close()
