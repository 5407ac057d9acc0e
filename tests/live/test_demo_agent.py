"""The agent the package ships, run as the demo runs it (by its path) and as a module."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import descartes_fast

PATH = str(Path(descartes_fast.__file__).parent / "demo_agent.py")

Run = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]


@pytest.fixture(
    params=[("-I", "-S", PATH), ("-m", "descartes_fast.demo_agent")], ids=["path", "module"]
)
def demo_agent(request: pytest.FixtureRequest) -> Run:
    """Run the demo agent with some options."""

    def run(*options: str) -> subprocess.Popen[str]:
        command = [sys.executable, *request.param, *options]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    return run


def test_demo_agent_takes_its_steps_and_ends(demo_agent: Run) -> None:
    with demo_agent("--steps", "2", "--interval", "0", "--", "-x", "y") as agent:
        said, complained = agent.communicate()
    assert said.splitlines() == [
        "demo: started: -x y",
        "demo: step 1 of 2",
        "demo: step 2 of 2",
        "demo: done",
    ]
    assert (complained, agent.returncode) == ("", 0)


def test_demo_agent_ends_with_the_code_asked_for(demo_agent: Run) -> None:
    with demo_agent("--steps", "1", "--interval", "0", "--exit-code", "3") as agent:
        _, complained = agent.communicate()
    assert complained == "demo: failed, as asked\n"
    assert agent.returncode == 3


def test_demo_agent_hears_lines_and_quits_when_told(demo_agent: Run) -> None:
    with demo_agent("--steps", "0", "--interval", "60") as agent:
        said, _ = agent.communicate("one\nt\u00e9st\nquit\nunheard\n")
    assert said.splitlines() == ["demo: started", "heard: one", "heard: t\u00e9st", "demo: goodbye"]
    assert agent.returncode == 0


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGTERM, "goodbye"), (signal.SIGINT, "interrupted")]
)
def test_demo_agent_ends_in_order_when_signalled(
    demo_agent: Run, number: signal.Signals, word: str
) -> None:
    with demo_agent("--steps", "0", "--interval", "60") as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "demo: started\n"
        agent.send_signal(number)
        assert agent.stdout.read() == f"demo: {word}\n"
    assert agent.returncode == 0


def test_demo_agent_works_on_when_its_stdin_ends(demo_agent: Run) -> None:
    with demo_agent("--steps", "1", "--interval", "0.05") as agent:
        said, _ = agent.communicate("")
    assert said.splitlines()[-1] == "demo: done"
