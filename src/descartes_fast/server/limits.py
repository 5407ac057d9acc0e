"""The reserves below which a server takes no more agents: disk, file descriptors, state."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..config import ZmqServerConfig
from .keeper.system import open_descriptors
from .pipe_ends import DESCRIPTORS_PER_AGENT

__all__ = ["Reserves"]

_KEEP_SECS = 0.2  # statvfs and counting take their time: not for each of 2,000 spawns a second


class Reserves:
    """Says whether there is room for one more agent.

    ``state_bytes`` is asked for the bytes of output that are on the disk, ``agents_alive`` for how
    many agents hold descriptors.
    """

    def __init__(
        self,
        config: ZmqServerConfig,
        state_path: Path,
        state_bytes: Callable[[], int],
        agents_alive: Callable[[], int] = lambda: 0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._state_path = state_path
        self._state_bytes = state_bytes
        self._agents_alive = agents_alive
        self._clock = clock
        self._looked_at = float("-inf")
        self._answer: str | None = None
        self._alive_then = 0
        self._spare_descriptors = sys.maxsize

    def shortage(self) -> str | None:
        """Return which reserve is not met, in words; ``None`` if all are. At most 0.2 s old."""
        now = self._clock()
        if now - self._looked_at > _KEEP_SECS:
            self._looked_at = now
            self._alive_then = self._agents_alive()
            self._answer = self._disk() or self._descriptors() or self._state()
        return self._answer or self._descriptors_since()

    def _disk(self) -> str | None:
        try:
            found = os.statvfs(self._state_path)
        except OSError as error:
            return f"the state directory cannot be read: {error.strerror}"
        free = found.f_bavail * found.f_frsize
        if free < self._config.disk_reserve_bytes:
            return (
                f"free disk space is {free} bytes, below the reserve of "
                f"{self._config.disk_reserve_bytes}"
            )
        return None

    def _descriptors(self) -> str | None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._spare_descriptors = sys.maxsize
        if limit == resource.RLIM_INFINITY:
            return None
        try:
            used = open_descriptors()
        except OSError as error:  # EMFILE: none left to look with
            return f"file descriptors cannot be counted: {error.strerror}"
        self._spare_descriptors = limit - used - self._config.fd_reserve
        if self._spare_descriptors < 0:
            return (
                f"{max(limit - used, 0)} of {limit} file descriptors are free, below the reserve "
                f"of {self._config.fd_reserve}"
            )
        return None

    def _descriptors_since(self) -> str | None:
        """Look at what the agents hold that were started since the last count."""
        more = self._agents_alive() - self._alive_then
        if more * DESCRIPTORS_PER_AGENT <= self._spare_descriptors:
            return None
        return f"file descriptors are near the reserve of {self._config.fd_reserve}"

    def _state(self) -> str | None:
        held = self._state_bytes()
        if held > self._config.state_limit_bytes:
            return (
                f"the agents' output takes {held} bytes, over the limit of "
                f"{self._config.state_limit_bytes}"
            )
        return None
