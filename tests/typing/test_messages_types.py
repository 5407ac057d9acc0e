"""mypy, as strict as it gets, agrees with what is said of the messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_mypy_knows_the_messages() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    usage = Path(__file__).with_name("messages_usage.py")
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", str(usage)],
        cwd=usage.parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
