"""A short chaos run: everything breaks by chance for half a minute, and the history is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import clean_environment

MINUTES = float(os.environ.get("TEST_CHAOS_MINUTES", "0.5"))
SEED = os.environ.get("TEST_CHAOS_SEED")
_FINISH_SECS = 240


@pytest.mark.leaves_orphans
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.timeout(MINUTES * 60 + _FINISH_SECS + 10)
def test_chaos_run_has_no_violation() -> None:
    command = [sys.executable, str(Path(__file__).parents[1] / "chaos")]
    command += ["--minutes", str(MINUTES)] + (["--seed", SEED] if SEED else [])
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=clean_environment(),
        timeout=MINUTES * 60 + _FINISH_SECS,
        check=False,
    )
    report = done.stdout.decode()
    print(report)
    assert done.returncode == 0, report
