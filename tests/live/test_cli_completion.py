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
    *_, last = words = line.split(" ")
    program = (
        _DEFINE
        + script(build_parser(), "bash")
        + f"COMP_WORDS=({' '.join(words[:-1])} '{last}'); COMP_CWORD={len(words) - 1}\n"
        + '_descartes_fast; printf "%s\\n" "${COMPREPLY[@]}"\n'
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
    assert {"spawn", "ps", "--endpoint"} <= set(_offered("descartes-fast "))


def test_bash_offers_a_commands_options_also_after_global_ones() -> None:
    assert _offered("descartes-fast logs --ta") == ["--tail"]
    assert _offered("descartes-fast --endpoint x logs --std") == ["--stderr"]


def test_bash_offers_an_options_choices() -> None:
    assert _offered("descartes-fast ps --status pa") == ["paused"]
    assert _offered("descartes-fast query --stream ") == ["stdout", "stderr", "both"]
    assert _offered("descartes-fast completion z") == ["zsh"]


def test_bash_offers_ids_of_agents(cli: CommandLine) -> None:
    agent_id = cli.ended("true")
    offered = _offered(f"descartes-fast stop {agent_id[:3]}", DESCARTES_FAST_ENDPOINT=cli.endpoint)
    assert offered == [agent_id]


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
