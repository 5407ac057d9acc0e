"""The reserves below which a server takes no more agents: disk, file descriptors, state."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from ..config import ZmqServerConfig

__all__ = ["Reserves"]

_KEEP_SECS = 0.2  # listing 1,000 descriptors takes 0.3 ms: not for each of 2,000 spawns a second


class Reserves:
    """Says whether there is room for one more agent.

    ``state_bytes`` is asked for the bytes of output that are on the disk.
    """

    def __init__(
        self,
        config: ZmqServerConfig,
        state_path: Path,
        state_bytes: Callable[[], int],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._state_path = state_path
        self._state_bytes = state_bytes
        self._clock = clock
        self._looked_at = float("-inf")
        self._answer: str | None = None

    def shortage(self) -> str | None:
        """Return which reserve is not met, in words; ``None`` if all are. At most 0.2 s old."""
        now = self._clock()
        if now - self._looked_at > _KEEP_SECS:
            self._looked_at = now
            self._answer = self._disk() or self._descriptors() or self._state()
        return self._answer

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
        if limit == resource.RLIM_INFINITY:
            return None
        try:
            used = len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))
        except OSError as error:  # EMFILE: none left to look with
            return f"file descriptors cannot be counted: {error.strerror}"
        if limit - used < self._config.fd_reserve:
            return (
                f"{max(limit - used, 0)} of {limit} file descriptors are free, below the reserve "
                f"of {self._config.fd_reserve}"
            )
        return None

    def _state(self) -> str | None:
        held = self._state_bytes()
        if held > self._config.state_limit_bytes:
            return (
                f"the agents' output takes {held} bytes, over the limit of "
                f"{self._config.state_limit_bytes}"
            )
        return None
