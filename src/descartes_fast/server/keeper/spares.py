"""Descriptors held for what must not fail when there are no others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from .passing import close_all

__all__ = ["Spares"]


class Spares:
    """A number of descriptors of nothing, which give way for a moment."""

    def __init__(self, count: int) -> None:
        """Take as many as there are, up to ``count``."""
        self._count = count
        self._fds: list[int] = []
        self.refill()

    def hold(self, count: int) -> None:
        """Hold ``count`` from now on."""
        self._count = count
        self.refill()

    @contextlib.contextmanager
    def given_way(self) -> Iterator[None]:
        """Have so many more descriptors to be opened; what is free afterwards is held again."""
        close_all(self._fds)
        self._fds.clear()
        try:
            yield
        finally:
            self.refill()

    def refill(self) -> None:
        """Hold again what has become free."""
        with contextlib.suppress(OSError):
            while len(self._fds) < self._count:
                self._fds.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Close all."""
        close_all(self._fds)
        self._fds.clear()
