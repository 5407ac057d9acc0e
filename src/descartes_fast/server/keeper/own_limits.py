"""What the keeper gives itself and its agents shall not have.

It raises its limit of open descriptors, and where it is permitted (root, CAP_SYS_RESOURCE)
it has the OOM killer take others first. Children inherit both, so each sets itself back before
its program is executed.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

__all__ = ["OwnLimits"]

_OOM_SCORE = -900  # not -1000: a keeper that eats all the memory may go


@dataclass(frozen=True, slots=True)
class OwnLimits:
    """The values that agents get; ``None``: nothing was changed."""

    agent_nofile: int | None = None
    agent_oom_score: int | None = None

    @classmethod
    def raised(cls, agent_nofile: int | None) -> Self:
        """Raise what can be; agents may open ``agent_nofile`` files, else as many as before."""
        return cls(_raise_nofile(agent_nofile), _lower_oom_score())

    def saved(self) -> dict[str, Any]:
        """Return the fields, for a keeper that has them raised already."""
        return asdict(self)

    def to_take_back(self, limits: Mapping[str, int]) -> list[tuple[int, int, int]]:
        """Return what a new process sets beside the ``limits`` that its launch asks for.

        Resources, each with its soft and its hard limit.
        """
        if self.agent_nofile is None or "nofile" in limits:
            return []
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        is_bounded = hard != resource.RLIM_INFINITY
        soft = min(self.agent_nofile, hard) if is_bounded else self.agent_nofile
        return [(resource.RLIMIT_NOFILE, soft, hard)]

    @property
    def oom_score_to_take_back(self) -> bytes | None:
        """What a new process writes into its ``oom_score_adj``."""
        return None if self.agent_oom_score is None else b"%d" % self.agent_oom_score


def _raise_nofile(wanted: int | None) -> int | None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for_agents = soft if wanted is None else wanted
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None if for_agents == resource.getrlimit(resource.RLIMIT_NOFILE)[0] else for_agents


def _lower_oom_score() -> int | None:
    try:
        with open("/proc/self/oom_score_adj") as file:
            before = int(file.read())
        if before <= _OOM_SCORE:
            return None
        _set_oom_score(_OOM_SCORE)
    except (OSError, ValueError):
        return None
    return before


def _set_oom_score(score: int) -> None:
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(score).encode())
    finally:
        os.close(fd)
