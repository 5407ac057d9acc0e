"""Noticing that an agent's process has exited, without reaping it.

The exit status stays where it is: as long as nobody has read it, the process id, and
with it the id of the process group, cannot be given to anybody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from .loop import READ, Loop
from .spares import Spares
from .system import SHORTAGES, has_exited

__all__ = ["ExitWatch", "PidfdExits", "SignalExits", "choose_exits"]


class PidfdExits:
    """One descriptor a process, readable when it has exited (Linux 5.3)."""

    uses_fds = True

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._fds: dict[int, int] = {}
        # It must not be this descriptor that is missing when the process is there already.
        self._spares = Spares(1)

    def hold(self, pid: int) -> None:
        """Have a descriptor of ``pid``, for others too. Raises ``OSError``."""
        if pid not in self._fds:
            self._spares.refill()
            self._fds[pid] = self._opened(pid)

    def watch(self, pid: int, exited: Callable[[], None]) -> None:
        """Call ``exited`` once when ``pid`` has exited. Raises ``OSError``."""
        self.hold(pid)
        fd = self._fds[pid]

        def once() -> None:
            self.forget(pid)
            exited()

        try:
            self._loop.watch(fd, READ, once)
        except OSError:
            self.forget(pid)
            raise

    def descriptor(self, pid: int) -> int:
        """Return the descriptor that becomes readable, or -1."""
        return self._fds.get(pid, -1)

    def forget(self, pid: int) -> None:
        """Watch ``pid`` no longer."""
        fd = self._fds.pop(pid, -1)
        if fd >= 0:
            self._loop.unwatch(fd)
            os.close(fd)

    def child_signalled(self) -> None:
        """SIGCHLD came: the descriptors say it already."""

    def close(self) -> None:
        """Close what is held back."""
        self._spares.close()

    def _opened(self, pid: int) -> int:
        try:
            return os.pidfd_open(pid)
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            with self._spares.given_way():
                return os.pidfd_open(pid)


class SignalExits:
    """Looks at every process when SIGCHLD comes: macOS, older kernels, some sandboxes."""

    uses_fds = False

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._callbacks: dict[int, Callable[[], None]] = {}

    def hold(self, pid: int) -> None:
        """There are no descriptors."""

    def watch(self, pid: int, exited: Callable[[], None]) -> None:
        """Call ``exited`` once when ``pid`` has exited."""
        self._callbacks[pid] = exited
        self._loop.call_soon(self.child_signalled)  # it may have exited before this call

    def descriptor(self, pid: int) -> int:
        """There is none."""
        return -1

    def forget(self, pid: int) -> None:
        """Watch ``pid`` no longer."""
        self._callbacks.pop(pid, None)

    def child_signalled(self) -> None:
        """SIGCHLD came: see who it was."""
        for pid in [pid for pid in self._callbacks if has_exited(pid)]:
            self._callbacks.pop(pid)()

    def close(self) -> None:
        """Nothing is held."""


ExitWatch = PidfdExits | SignalExits


def choose_exits(loop: Loop) -> ExitWatch:
    """Return the watch that works on this system."""
    if hasattr(os, "pidfd_open"):
        try:
            os.close(os.pidfd_open(os.getpid()))
        except OSError:
            pass
        else:
            return PidfdExits(loop)
    return SignalExits(loop)
