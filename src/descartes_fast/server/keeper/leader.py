"""An agent's first process: a child of this keeper, or one taken over from another keeper.

A child that has exited stays unreaped until the agent's end is told, so that its id, its
group's and its session's remain its own: it can be signalled by its id. A process taken
over is somebody else's child and may be reaped at any time: it is held by a pidfd.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

from .exits import ExitWatch
from .loop import READ, Loop
from .passing import close_all
from .proc import start_ticks, status_of_zombie
from .system import is_readable, status_by_pidfd
from .trees import signal_group

__all__ = ["Adopted", "Child", "Exit", "Leader"]

_SIGNAL_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended and what it used; ``None`` is what nobody could see."""

    status: int | None
    user_secs: float | None = None
    system_secs: float | None = None
    max_rss_bytes: int | None = None

    @property
    def code(self) -> int | None:
        """The exit code, if it was no signal."""
        return None if self.status is None or os.WIFSIGNALED(self.status) else self.status >> 8

    @property
    def signal(self) -> int | None:
        """The signal that ended it."""
        by_signal = self.status is not None and os.WIFSIGNALED(self.status)
        return os.WTERMSIG(self.status) if by_signal and self.status is not None else None


class Child:
    """A process that this keeper started."""

    is_adopted = False

    def __init__(self, exits: ExitWatch, pid: int, ticks: int) -> None:
        self.pid = pid
        self.start_ticks = ticks
        self._exits = exits

    @property
    def exit_fd(self) -> int:
        """A descriptor that is readable when it has exited, while it is held; -1 where none is."""
        return self._exits.descriptor(self.pid)

    def hold(self) -> None:
        """Have a descriptor of it, as whoever takes it over needs one. Raises ``OSError``."""
        self._exits.hold(self.pid)

    def watch(self, exited: Callable[[], None]) -> None:
        """Hold it, and call ``exited`` once when it has exited. Raises ``OSError``."""
        self._exits.watch(self.pid, exited)

    def send(self, signum: int, *, group: bool = False) -> None:
        """Signal it, or its group. Raises ``OSError``."""
        if group:
            os.killpg(self.pid, signum)
        else:
            os.kill(self.pid, signum)

    def send_group(self, *signals: int) -> None:
        """Signal its group, whoever is left of it."""
        signal_group(self.pid, *signals)

    def owns_session(self) -> bool:
        """Whether the session of its id is its own."""
        return True

    def collect(self) -> Exit:
        """Reap it, which has exited."""
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            return Exit(None)  # somebody else was there before: nobody knows how it ended
        assert pid == self.pid, "an agent was reaped before it had exited"
        # Kilobytes, but bytes on Darwin.
        rss = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Exit(status, usage.ru_utime, usage.ru_stime, rss)

    def close(self) -> None:
        """Watch it no longer."""
        self._exits.forget(self.pid)


class Adopted:
    """A process that another keeper started. Linux only: elsewhere an id is all there is."""

    is_adopted = True

    def __init__(self, loop: Loop, pid: int, ticks: int, pidfd: int | None = None) -> None:
        """Take ``pidfd``, or else look whether ``pid`` is still the process of that start.

        Raises ``OSError`` where the system has no pidfds.
        """
        self.pid = pid
        self.start_ticks = ticks
        self._loop = loop
        self.status: int | None = None
        """Its wait status, once it was seen."""
        self.exit_fd = _open(pid, ticks) if pidfd is None else pidfd

    def watch(self, exited: Callable[[], None]) -> None:
        """Call ``exited`` once when it has exited. Raises ``OSError``."""

        def once() -> None:
            self._loop.unwatch(self.exit_fd)
            self.status = _status(self)
            exited()

        if self.exit_fd < 0:
            self._loop.call_soon(exited)
        else:
            self._loop.watch(self.exit_fd, READ, once)

    def send(self, signum: int, *, group: bool = False) -> None:
        """Signal it, or its group. Raises ``OSError``."""
        if self.exit_fd < 0:
            raise ProcessLookupError
        if not group:
            signal.pidfd_send_signal(self.exit_fd, signum)
            return
        try:
            signal.pidfd_send_signal(self.exit_fd, signum, None, _SIGNAL_GROUP)
        except OSError:
            # An older kernel. While it runs the group's id is its own.
            if not self.has_exited():
                os.killpg(self.pid, signum)

    def send_group(self, *signals: int) -> None:
        """Signal its group, whoever is left of it."""
        for signum in signals:
            try:
                self.send(signum, group=True)
            except OSError:
                return

    def has_exited(self) -> bool:
        """Whether it is gone; its id may be anybody's then."""
        return self.exit_fd < 0 or is_readable(self.exit_fd)

    def owns_session(self) -> bool:
        """Whether the session of its id is its own: nobody else has that id since."""
        return start_ticks(self.pid) in (0, self.start_ticks)

    def collect(self) -> Exit:
        """Return what is known of its end."""
        if self.status is None and self.exit_fd >= 0:
            self.status = _status(self)
        return Exit(self.status)

    def close(self) -> None:
        """Watch it no longer."""
        if self.exit_fd >= 0:
            self._loop.unwatch(self.exit_fd)
            close_all([self.exit_fd])
            self.exit_fd = -1


Leader = Child | Adopted


def _open(pid: int, ticks: int) -> int:
    """Return a pidfd of that very process; -1 if it is gone. Raises ``OSError``."""
    if not hasattr(os, "pidfd_open"):
        raise OSError("this system cannot hold a process that is not a child")
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    # Held first, looked at afterwards: what has that start now is what is held.
    if start_ticks(pid) == ticks:
        return fd
    os.close(fd)
    return -1


def _status(leader: Adopted) -> int | None:
    """Return the wait status of a process that has exited, reaped or not."""
    status = status_by_pidfd(leader.exit_fd)
    if status is None:
        status = status_of_zombie(leader.pid, leader.start_ticks)
    # Reaped between the two looks.
    return status_by_pidfd(leader.exit_fd) if status is None else status
