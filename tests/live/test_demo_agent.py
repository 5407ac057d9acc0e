"""The agent the package ships, run as the demo runs it: by its path, with ``-I -S``."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import descartes_fast

AGENT = Path(descartes_fast.__file__).parent / "demo_agent.py"


@contextmanager
def demo_agent(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-I", "-S", str(AGENT), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        yield process


def test_demo_agent_takes_its_steps_and_ends() -> None:
    with demo_agent("--steps", "2", "--interval", "0", "--", "-x", "y") as agent:
        said, complained = agent.communicate()
    assert said.splitlines() == [
        "demo: started: -x y",
        "demo: step 1 of 2",
        "demo: step 2 of 2",
        "demo: done",
    ]
    assert (complained, agent.returncode) == ("", 0)


def test_demo_agent_ends_with_the_code_asked_for() -> None:
    with demo_agent("--steps", "1", "--interval", "0", "--exit-code", "3") as agent:
        _, complained = agent.communicate()
    assert complained == "demo: failed, as asked\n"
    assert agent.returncode == 3


def test_demo_agent_hears_lines_and_quits_when_told() -> None:
    with demo_agent("--steps", "0", "--interval", "60") as agent:
        said, _ = agent.communicate("one\nt\u00e9st\nquit\nunheard\n")
    assert said.splitlines() == ["demo: started", "heard: one", "heard: t\u00e9st", "demo: goodbye"]
    assert agent.returncode == 0


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGTERM, "goodbye"), (signal.SIGINT, "interrupted")]
)
def test_demo_agent_ends_in_order_when_signalled(number: signal.Signals, word: str) -> None:
    with demo_agent("--steps", "0", "--interval", "60") as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "demo: started\n"
        agent.send_signal(number)
        assert agent.stdout.read() == f"demo: {word}\n"
    assert agent.returncode == 0


def test_demo_agent_works_on_when_its_stdin_ends() -> None:
    with demo_agent("--steps", "1", "--interval", "0.05") as agent:
        said, _ = agent.communicate("")
    assert said.splitlines()[-1] == "demo: done"
