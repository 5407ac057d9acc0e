"""``demo``: done in ten seconds, on a terminal, in a pipe, and without rich; leaves nothing."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from command_line import COMMAND, clean_environment, run_on_terminal


def _left(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def _check(text: str) -> None:
    for words in (
        "ada    | ada: step 1",
        "ada    * paused",
        "grace  | heard: hello from the demo",
        "grace  * terminated",
        "linus  * failed (exit 3)",
        "ada    * completed (exit 0)",
        "Nothing is left",
    ):
        assert words in text, text


@pytest.mark.parametrize("hidden", [False, True], ids=["rich", "without-rich"])
def test_demo_in_a_pipe_shows_all_of_it_and_leaves_nothing(hidden: bool) -> None:
    command = list(COMMAND)
    if hidden:
        program = "import sys; sys.modules['rich'] = None; from descartes_fast.cli import main"
        command = [command[0], "-c", f"{program}; sys.exit(main(sys.argv[1:]))"]
    with tempfile.TemporaryDirectory(prefix="dfd-") as folder:
        began = time.monotonic()
        done = subprocess.run(
            [*command, "demo"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=clean_environment(TMPDIR=folder),
            timeout=40,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - began < 10
        assert _left(folder) == []
    assert done.stderr == b""
    assert b"\x1b" not in done.stdout
    _check(done.stdout.decode())


def test_demo_on_a_terminal_is_in_colour() -> None:
    environment = clean_environment(TERM="xterm-256color", COLUMNS="100")
    del environment["NO_COLOR"]
    code, seen = run_on_terminal("demo", environment=environment)
    assert code == 0
    assert "\x1b[" in seen
    assert "Nothing is left" in seen


def test_demo_json_is_one_message_a_line() -> None:
    done = subprocess.run(
        [*COMMAND, "demo", "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=clean_environment(),
        timeout=40,
        check=True,
    )
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert {message["type"] for message in messages} == {"log_stream", "status_update"}
