"""SIGTERM or Ctrl-C comes while a server is still starting: it ends, and leaves no file behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from command_line import clean_environment

# Signals itself when the start has come to a step; a keeper's start takes its time in a thread.
_PROGRAM = """
import asyncio, os, signal, sys
import descartes_fast.server.assembly as assembly
from descartes_fast.cli import main

step, number = sys.argv[1], int(sys.argv[2])
holder, name = {
    "binding": (assembly, "_bind"),
    "keeper": (assembly.KeeperLink, "open"),
    "last": (assembly, "_serve"),
}[step]
original = getattr(holder, name)

def signalled(*arguments, **options):
    os.kill(os.getpid(), number)
    return original(*arguments, **options)

setattr(holder, name, signalled)
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", ["binding", "keeper", "last"])
def test_signal_at_any_step_of_the_start_ends_it_and_leaves_nothing(
    step: str, number: signal.Signals
) -> None:
    with tempfile.TemporaryDirectory(prefix="dfast-") as name:
        folder = Path(name)
        endpoint, pub_endpoint = f"ipc://{folder}/commands", f"ipc://{folder}/events"
        options = ["--endpoint", endpoint, "--pub-endpoint", pub_endpoint]
        options += ["--state-dir", str(folder / "state")]
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, step, str(int(number)), "serve", *options],
            capture_output=True,
            env=clean_environment(),
            timeout=20,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert step == "last" or done.stdout == b"", "it says it is ready though it is not"
        assert [path.name for path in folder.iterdir()] == ["state"]
        assert list((folder / "state" / "run").glob("*.sock")) == []
