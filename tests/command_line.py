"""The command line as a test uses it: a server and the commands, as real processes."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-m", "descartes_fast")

SERVER_TOML = """\
[zmq_server]
endpoint = "ipc://{folder}/commands"
pub_endpoint = "ipc://{folder}/events"
state_dir = "{folder}/state"
server_id = "under-test"
stop_grace_secs = 2
output_limit_bytes = 4194304

[backends.sh]
command = ["sh", "-c", "{{task}}"]
stdin = "pipe"
environment = ["PATH"]
client_environment = ["COLOUR"]
"""


def clean_environment(**more: str) -> dict[str, str]:
    """Return our environment without settings of the command line, and with ``more``."""
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith("DESCARTES_FAST_")
    }
    return ours | {"HOME": "/nonexistent", "NO_COLOR": "1"} | more


def run_on_terminal(*words: str, environment: dict[str, str]) -> tuple[int, str]:
    """Run a command whose three streams are a terminal; return its code and what it shows."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as command:
        os.close(theirs)
        seen = b""
        # Reading fails when nobody has the terminal's other end any more.
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65536):
                seen += piece
        os.close(ours)
        code = command.wait(timeout=20)
    return code, seen.decode(errors="replace")


@dataclass(frozen=True)
class CommandLine:
    """Runs ``descartes-fast`` commands against one server."""

    endpoint: str
    folder: Path

    def __call__(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end."""
        return subprocess.run(
            [*COMMAND, *words],
            input=stdin,
            capture_output=True,
            env=clean_environment(DESCARTES_FAST_ENDPOINT=self.endpoint),
            timeout=40,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command and leave its streams to the test."""
        return subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(DESCARTES_FAST_ENDPOINT=self.endpoint),
        )

    def on_terminal(self, *words: str, **environment: str) -> tuple[int, str]:
        """Run a command whose three streams are a terminal; return its code and what it shows."""
        variables = clean_environment(
            DESCARTES_FAST_ENDPOINT=self.endpoint, TERM="xterm-256color", COLUMNS="100"
        )
        return run_on_terminal(*words, environment=variables | environment)

    def spawn(self, task: str, *options: str) -> str:
        """Start an agent of the backend ``sh`` and return its id."""
        done = self("spawn", "--backend", "sh", *options, task)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def ended(self, task: str) -> str:
        """Start an agent, wait for its end, and return its id."""
        done = self("spawn", "--backend", "sh", "--wait", task)
        return done.stdout.decode().strip()

    def wait_for_output(self, agent_id: str, words: bytes) -> None:
        """Return when an agent has written ``words`` to stdout."""
        with self.start("logs", "-f", agent_id) as follower:
            assert follower.stdout is not None
            seen = b""
            while words not in seen:
                piece = os.read(follower.stdout.fileno(), 65536)
                assert piece, f"the agent ended without {words!r}: {seen!r}"
                seen += piece
            follower.send_signal(signal.SIGINT)
