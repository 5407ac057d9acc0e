"""``systemd-unit``: a unit that systemd takes, with which keeper and agents stay."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from command_line import COMMAND, clean_environment
from descartes_fast.cli.systemd import unit
from descartes_fast.errors import UsageError


def settings(text: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(text)
    return parsed


def printed(*words: str) -> str:
    done = subprocess.run(
        [*COMMAND, "systemd-unit", *words],
        capture_output=True,
        env=clean_environment(),
        timeout=30,
        check=True,
    )
    return done.stdout.decode()


def test_unit_signals_the_server_alone_and_starts_it_again() -> None:
    service = settings(printed())["Service"]
    assert service["KillMode"] == "process"
    assert service["Restart"] == "always"
    assert service["OOMPolicy"] == "continue"
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).is_absolute()
    assert words[-2:] == ["serve", "--keep-agents"]
    subprocess.run(
        [program, *words[:-2], "--version"], stdout=subprocess.DEVNULL, timeout=30, check=True
    )


def test_unit_of_the_machine_names_user_and_state_directory() -> None:
    text = settings(printed("--user", "agents"))
    assert text["Service"]["User"] == "agents"
    assert text["Service"]["StateDirectory"] == "descartes-fast"
    assert text["Service"]["ExecStart"].endswith(" --state-dir %S/descartes-fast")
    assert text["Install"]["WantedBy"] == "multi-user.target"
    assert settings(printed())["Install"]["WantedBy"] == "default.target"


def test_words_of_the_unit_are_quoted_for_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", '/a b:/c%d:/e"f:$HOME')
    service = settings(unit(config=Path('/a b/100% "$x".toml')))["Service"]
    assert service["ExecStart"].endswith('--config "/a b/100%% \\"$$x\\".toml"')
    assert service["Environment"] == '"PATH=/a b:/c%%d:/e\\"f:$HOME"'


def test_name_that_no_user_has_is_refused() -> None:
    with pytest.raises(UsageError, match="not a user's name"):
        unit(user="root\nExecStartPre=/bin/true")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("words", [(), ("--user", "root"), ("--config", "/a b/c.toml")])
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "descartes-fast.service"
    file.write_text(printed(*words))
    manager = [] if "--user" in words else ["--user"]
    done = subprocess.run(
        ["systemd-analyze", "verify", *manager, str(file)],
        capture_output=True,
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
