"""Ends of agents where something is refused: what is dropped is left alone, the others are not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from descartes_fast.server.keeper import endings as endings_module
from descartes_fast.server.keeper import trees
from descartes_fast.server.keeper.agent import Agent
from descartes_fast.server.keeper.agents import Agents
from descartes_fast.server.keeper.leader import Child
from descartes_fast.server.keeper.loop import Loop
from descartes_fast.server.keeper.output_pipe import OutputPipe
from descartes_fast.server.keeper.own_limits import OwnLimits
from descartes_fast.server.keeper.trees import choose_trees

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are listed in /proc")


class Keeping:
    """Agents and their loop, without a server."""

    def __init__(self, directory: Path) -> None:
        self.loop = Loop()
        own_limits = OwnLimits()
        self.agents = Agents(
            self.loop, choose_trees("tests"), lambda event: None, lambda: False, own_limits
        )
        self.children: set[int] = set()
        self._directory = directory

    def agent(self, name: str, process: subprocess.Popen[bytes]) -> Agent:
        pipes = [
            OutputPipe(
                -1,
                str(self._directory / f"{name}-{stream}"),
                limit_bytes=1 << 20,
                policy="trim",
                budget=self.agents.budget,
                files=self.agents.files,
            )
            for stream in ("stdout", "stderr")
        ]
        self.children.add(process.pid)
        leader = Child(self.agents.endings.exits, process.pid, 0)
        return Agent(name, leader, 0, None, *pipes)

    def turn_until(self, condition: Callable[[], bool], secs: float = 10.0) -> None:
        stop_at = time.monotonic() + secs
        while not condition():
            assert time.monotonic() < stop_at
            self.loop.call_later(0.01, lambda: None)
            self.loop.turn()
            self.loop.run(self.agents.after_turn)
            self.agents.endings.child_signalled()


@pytest.fixture
def keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeping]:
    keeping = Keeping(tmp_path)
    monkeypatch.setattr(trees, "own_children", lambda: keeping.children)  # not all of pytest's
    yield keeping
    keeping.agents.close()
    keeping.loop.close()


def refuse(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def resume_in_vain(keeping: Keeping, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(keeping.loop, "watch", refuse)
        with pytest.raises(OSError, match="No space"):
            keeping.agents.resume(agent)
    keeping.agents.lose(agent)


def test_agent_that_was_dropped_is_killed_once_and_not_when_its_grace_is_over(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        agent = keeping.agent("dropped", process)
        agent.kill_at = time.monotonic() + 0.05
        resume_in_vain(keeping, agent, monkeypatch)
        keeping.turn_until(lambda: not Path(f"/proc/{process.pid}").exists())
    killed: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, signum: killed.append(pid))
    over_at = agent.kill_at + 0.1
    keeping.turn_until(lambda: time.monotonic() >= over_at)
    assert killed == []


def test_agent_that_cannot_be_resumed_costs_no_other_its_end(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        subprocess.Popen(["sleep", "60"], start_new_session=True) as lost,
        subprocess.Popen(["sh", "-c", "exit 7"], start_new_session=True) as ended,
    ):
        agents = [keeping.agent("lost", lost), keeping.agent("ended", ended)]
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        keeping.agents.endings.expect(agents)
        resume_in_vain(keeping, agents[0], monkeypatch)
        keeping.agents.resume(agents[1])
        keeping.turn_until(lambda: agents[1].ended is not None)
        keeping.turn_until(lambda: not Path(f"/proc/{lost.pid}").exists())
    assert agents[1].ended is not None
    assert agents[1].ended["exit_code"] == 7


def test_looks_that_are_refused_do_not_multiply(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def refused(*_: Any) -> None:
        looks.append(time.monotonic())
        refuse()

    monkeypatch.setattr(endings_module, "_BLIND_SECS", 0.01)
    monkeypatch.setattr(keeping.agents.endings._trees, "strays", refused)
    for _ in range(50):
        keeping.agents.endings.child_signalled()
    assert len(looks) == 50
    stop_at = time.monotonic() + 0.1
    while time.monotonic() < stop_at:
        keeping.loop.turn()  # each waits for the next timer
    assert len(looks) <= 50 + 12
