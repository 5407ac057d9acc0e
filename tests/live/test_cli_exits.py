"""What every command does about errors, Ctrl-C, and a reader that has gone."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from command_line import COMMAND, CommandLine, clean_environment


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=clean_environment(**environment),
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nosuch"],
        ["spawn"],
        ["--timeout", "-1", "ps"],
        ["ps", "--limit", "0"],
        ["ps", "--endpoint", "http://example"],
        ["ps", "--config", "/nonexistent/config.toml"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(words: list[str]) -> None:
    done = _run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(b"descartes-fast")
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


def test_a_command_there_is_not_is_told_the_nearest() -> None:
    assert _run("pasue").stderr == (
        b"descartes-fast: there is no command 'pasue'; did you mean pause? "
        b"(see descartes-fast --help)\n"
    )
    assert b"did you mean" not in _run("frob").stderr


def test_no_server_is_one_line_and_exit_125(tmp_path: Path) -> None:
    began = time.monotonic()
    done = _run("--timeout", "0.3", "ps", "--endpoint", f"ipc://{tmp_path}/none")
    assert done.returncode == 125
    assert done.stderr.count(b"\n") == 1
    assert time.monotonic() - began < 10


def test_help_lists_commands_and_exit_codes() -> None:
    done = _run("--help")
    assert done.returncode == 0
    for word in (b"spawn", b"attach", b"completion", b"124", b"125"):
        assert word in done.stdout
    assert _run("--version").stdout.strip()


def test_the_endpoint_comes_from_option_environment_and_file_in_this_order(
    cli: CommandLine, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[zmq_runner]\nendpoint = "{cli.endpoint}"\n')
    nowhere = f"ipc://{tmp_path}/none"
    by_file = _run("ps", "--config", str(config))
    by_variable = _run("ps", DESCARTES_FAST_ENDPOINT=cli.endpoint)
    by_option = _run("ps", "--endpoint", cli.endpoint, DESCARTES_FAST_ENDPOINT=nowhere)
    by_variable_over_file = _run(
        "--timeout", "0.3", "--config", str(config), "ps", DESCARTES_FAST_ENDPOINT=nowhere
    )
    codes = [done.returncode for done in (by_file, by_variable, by_option, by_variable_over_file)]
    assert codes == [0, 0, 0, 125]


def test_the_usual_configuration_file_is_found(cli: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "descartes-fast"
    folder.mkdir()
    (folder / "config.toml").write_text(f'[zmq_runner]\nendpoint = "{cli.endpoint}"\n')
    assert _run("ps", XDG_CONFIG_HOME=str(tmp_path)).returncode == 0


def test_ctrl_c_is_quiet_and_exit_130(cli: CommandLine) -> None:
    agent_id = cli.spawn("echo ready; sleep 60")
    with cli.start("logs", "-f", agent_id) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        assert following.stdout.readline() == b"ready\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=10) == 130
        assert following.stderr.read() == b""
    cli("kill", agent_id)


def test_a_reader_that_has_gone_ends_a_command_quietly(cli: CommandLine) -> None:
    agent_id = cli.spawn("seq 1 500000")
    with cli.start("logs", "-f", agent_id) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        assert following.stdout.readline() == b"1\n"
        following.stdout.close()
        assert following.wait(timeout=20) == 141
        assert following.stderr.read() == b""
    cli("wait", agent_id)


def test_a_full_disk_under_stdout_is_one_line_and_exit_1(cli: CommandLine) -> None:
    cli.ended("true")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "ps"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=clean_environment(DESCARTES_FAST_ENDPOINT=cli.endpoint),
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"descartes-fast: No space left on device\n"


def test_closed_output_streams_are_no_error(cli: CommandLine) -> None:
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        command = f'exec "$@" {closed}'
        done = subprocess.run(
            ["sh", "-c", command, "sh", *COMMAND, "ps"],
            env=clean_environment(DESCARTES_FAST_ENDPOINT=cli.endpoint),
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, closed


def test_text_that_the_locale_cannot_say_is_escaped(cli: CommandLine) -> None:
    cli("spawn", "--backend", "sh", "--name", "na\u00efve", "--wait", "true")
    done = _run("ps", DESCARTES_FAST_ENDPOINT=cli.endpoint, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"na\\xefve" in done.stdout


def test_arguments_that_are_not_utf8_are_one_line(cli: CommandLine) -> None:
    done = cli("spawn", "--backend", "sh", "\udcff")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
