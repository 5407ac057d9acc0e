"""An agent's process id is a stranger's when the next server comes: the stranger is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import clean_environment

_NAMESPACES = ("-pf", "-Urpf")
_SCENE = Path(__file__).parent / "reused_process_id.py"


def namespace() -> list[str] | None:
    """Return the command that runs another where process ids can be chosen, if there may be."""
    choose = 'echo 100 > /proc/sys/kernel/ns_last_pid && sh -c "echo \\$\\$"'
    for options in _NAMESPACES:
        command = ["unshare", options, "--mount-proc"]
        try:
            done = subprocess.run(
                [*command, "sh", "-c", choose], capture_output=True, timeout=20, check=False
            )
        except OSError:
            return None
        if done.returncode == 0 and done.stdout == b"101\n":
            return command
    return None


@pytest.mark.parametrize("killed", ["both", "server"])
def test_stranger_with_an_agents_process_id_is_never_signalled(killed: str) -> None:
    command = namespace()
    if command is None:
        pytest.skip("process ids cannot be chosen here")
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (tests, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [*command, sys.executable, str(_SCENE), killed],
        capture_output=True,
        env=clean_environment(PYTHONPATH=path),
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    seen = json.loads(done.stdout)
    assert seen["stranger has the id"]
    assert seen["stranger lives"]
    assert seen["status"] == "failed"
    if killed == "both":
        assert (seen["exit_code"], seen["signal"]) == (None, None)
    else:
        assert seen["signal"] == 9
    assert seen["refusals"] == ["state", "state"]  # stop and kill: it has ended, as was wanted
