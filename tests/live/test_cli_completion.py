"""``completion``: what a shell offers, asked from the shell itself."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from command_line import COMMAND, CommandLine, clean_environment
from descartes_fast.cli.completion import script
from descartes_fast.cli.parser import build_parser

# The script calls the command by its name; here that is a function.
_DEFINE = f'descartes-fast() {{ {COMMAND[0]} -m descartes_fast "$@"; }}\n'


def _offered(line: str, **environment: str) -> list[str]:
    """Return what bash offers for the last word of a line."""
    program = (
        _DEFINE
        + script(build_parser(), "bash")
        + f"COMP_LINE='{line}'; COMP_POINT={len(line)}\n"
        + '_descartes_fast; printf "%s\\n" ${COMPREPLY[@]+"${COMPREPLY[@]}"}\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-u", "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=clean_environment(**environment),
        timeout=30,
        check=True,
    )
    assert done.stderr == b""
    return done.stdout.decode().split()


def test_bash_offers_commands() -> None:
    assert _offered("descartes-fast pa") == ["pause"]
    assert {"spawn", "ps"} <= set(_offered("descartes-fast "))
    assert _offered("descartes-fast --end") == ["--endpoint"]


def test_bash_offers_a_commands_options_also_after_global_ones() -> None:
    assert _offered("descartes-fast logs --ta") == ["--tail"]
    url = "tcp://127.0.0.1:5555"
    assert _offered(f"descartes-fast --endpoint {url} logs --std") == ["--stderr"]
    assert _offered(f"descartes-fast --endpoint={url} logs --std") == ["--stderr"]


def test_bash_offers_an_options_choices() -> None:
    assert _offered("descartes-fast ps --status pa") == ["paused"]
    assert _offered("descartes-fast query --stream ") == ["stdout", "stderr", "both"]
    assert _offered("descartes-fast completion z") == ["zsh"]
    assert _offered("descartes-fast query --stream=b") == ["both"]


def test_bash_offers_backends_and_signals() -> None:
    assert {"claude", "codex", "gemini"} <= set(_offered("descartes-fast spawn --backend "))
    assert _offered("descartes-fast spawn --backend cod") == ["codex"]
    assert _offered("descartes-fast signal SIGTE") == ["SIGTERM"]


def test_bash_offers_ids_of_the_agents_a_command_is_for(cli: CommandLine) -> None:
    ended, running = cli.ended("true"), cli.spawn("sleep 60")
    here = f"descartes-fast --endpoint {cli.endpoint}"
    assert sorted(_offered(f"{here} logs ")) == sorted([ended, running])
    assert _offered(f"{here} status {ended[:9]}") == [ended]
    assert _offered(f"{here} stop ") == [running]
    assert _offered(f"{here} signal SIGTERM ") == [running]
    assert _offered("descartes-fast stop ", DESCARTES_FAST_ENDPOINT=cli.endpoint) == [running]
    assert _offered(f"descartes-fast kill --endpoint={cli.endpoint} ") == [running]
    cli("kill", running)


def test_bash_offers_nothing_and_no_noise_without_a_server() -> None:
    assert _offered("descartes-fast stop x", DESCARTES_FAST_ENDPOINT="ipc:///nonexistent/x") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_command_prints_a_script_the_shell_accepts(shell: str) -> None:
    printed = subprocess.run(
        [*COMMAND, "completion", shell],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=clean_environment(),
        timeout=30,
        check=True,
    ).stdout
    assert printed.decode() == script(build_parser(), shell)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=printed, capture_output=True, timeout=30, check=True)
