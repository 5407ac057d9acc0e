"""What the keeper has and its agents shall not have."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest

from descartes_fast.server.keeper import own_limits
from descartes_fast.server.keeper.launcher import Launch, Launcher
from descartes_fast.server.keeper.own_limits import OwnLimits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux' /proc")


def oom_score() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


def begun_with(own: OwnLimits, limits: dict[str, int]) -> list[str]:
    """Return the score and the soft limit of descriptors that a program begins with."""
    launcher = Launcher()
    launch = Launch(
        [b"/bin/sh"],
        [b"sh", b"-c", b"cat /proc/self/oom_score_adj; ulimit -n"],
        [b"PATH=/usr/bin:/bin"],
        has_stdin=False,
        directory=None,
        umask=0o22,
        limits=own.to_take_back(limits),
        oom_score=own.oom_score_to_take_back,
    )
    launcher.begin(launch)
    launcher.close()
    launcher.work()
    launch.check()
    os.waitpid(launch.pid, 0)
    said = os.read(launch.stdout_fd, 1000).decode().split()
    for fd in (launch.stdout_fd, launch.stderr_fd):
        os.close(fd)
    return said


def test_process_takes_back_what_the_keeper_has() -> None:
    # Up is always allowed, so a test without rights can see it.
    score = oom_score() + 10
    own = OwnLimits(agent_nofile=123, agent_oom_score=score)
    assert begun_with(own, {}) == [str(score), "123"]


def test_limit_that_the_launch_asks_for_stays() -> None:
    assert OwnLimits(agent_nofile=123).to_take_back({"nofile": 50}) == []


def test_process_that_may_not_have_as_many_descriptors_has_what_it_may() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    own = OwnLimits(agent_nofile=hard + 1)
    assert begun_with(own, {}) == [str(oom_score()), str(hard)]


def test_score_is_lowered_where_that_is_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(own_limits, "_set_oom_score", lambda score: written.append(score))
    raised = OwnLimits.raised(None)
    assert raised.agent_oom_score == oom_score()
    assert written == [-900]


def test_score_is_left_alone_where_it_is_not_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(score: int) -> None:
        raise PermissionError

    monkeypatch.setattr(own_limits, "_set_oom_score", refuse)
    assert OwnLimits.raised(None).agent_oom_score is None
