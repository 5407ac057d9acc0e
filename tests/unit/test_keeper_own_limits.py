"""What the keeper has and its agents shall not have."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from descartes_fast.server.keeper import own_limits
from descartes_fast.server.keeper.own_limits import OwnLimits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux' /proc and prlimit")


@pytest.fixture
def child() -> Iterator[int]:
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_process_is_set_back(child: int) -> None:
    # Up is always allowed, so a test without rights can see it.
    score = oom_score(child) + 10
    OwnLimits(agent_nofile=123, agent_oom_score=score).take_from(child, {})
    assert oom_score(child) == score
    assert resource.prlimit(child, resource.RLIMIT_NOFILE)[0] == 123


def test_limit_that_the_launch_asks_for_stays(child: int) -> None:
    before = resource.prlimit(child, resource.RLIMIT_NOFILE)
    OwnLimits(agent_nofile=123).take_from(child, {"nofile": 50})
    assert resource.prlimit(child, resource.RLIMIT_NOFILE) == before


def test_score_is_lowered_where_that_is_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(own_limits, "_set_oom_score", lambda pid, score: written.append(score))
    raised = OwnLimits.raised(None)
    assert raised.agent_oom_score == oom_score(os.getpid())
    assert written == [-900]


def test_score_is_left_alone_where_it_is_not_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, score: int) -> None:
        raise PermissionError

    monkeypatch.setattr(own_limits, "_set_oom_score", refuse)
    assert OwnLimits.raised(None).agent_oom_score is None
