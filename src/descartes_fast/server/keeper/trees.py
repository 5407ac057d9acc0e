"""Finding and signalling what belongs to an agent beside its first process, the leader.

An agent's leader leads a session and a process group. What left both (``setsid``) is
found by a marker in its environment that names the keeper and the agent, and what has
wiped its environment too by its parent, if that is found and still alive. Not found: a
process that wiped its environment, left the session and lost its parent. It ends with the
keeper whose agent has started it; if the agent was taken over by another, it is never ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from .proc import environment, is_dead, own_children, parent_and_start, parent_of, processes

__all__ = [
    "MARKER",
    "GroupTable",
    "ProcessTable",
    "Trees",
    "children",
    "choose_trees",
    "signal_all",
    "signal_group",
]

MARKER = "DESCARTES_FAST_AGENT"
"""The environment variable of every agent: ``KEEPER'S INSTANCE/AGENT'S ID``."""

_STRANGER_SECS = 5.0  # how long a verdict "not ours" is trusted


@dataclass(slots=True)
class _Seen:
    """What was found out about a process that is in no session of an agent."""

    session: int
    owner: str | None
    start_ticks: int
    seen_at: float


class ProcessTable:
    """Reads /proc. A pass costs about 1 microsecond for each process of the machine."""

    def __init__(self, instance: str) -> None:
        self._marker = f"{MARKER}={instance}/".encode()
        self._seen: dict[int, _Seen] = {}
        self._before: dict[int, _Seen] = {}
        self._leaders: Mapping[int, str] = {}

    def members(self, leaders: Mapping[int, str]) -> dict[str, list[int]]:
        """Return the living processes of each agent, without its leader.

        ``leaders`` gives the agents' ids by their leaders' process ids. No leader may
        have been reaped: that keeps the ids of their sessions from being reused.
        Raises ``OSError`` where the machine has nothing left to look with.
        """
        self._leaders = leaders
        self._before, self._seen = self._seen, {}
        try:
            return self._found(processes(), leaders)
        except OSError:
            # What was known before the pass that broke off is still known.
            self._seen = self._before | self._seen
            raise

    def strays(
        self, leaders: Mapping[int, str], is_starting: Callable[[int], bool]
    ) -> list[int] | None:
        """Return what leaders that have exited left behind, or ancestors of it; also the dead.

        That costs much less to know than whose it is: what has lost its parent is a child of this
        process then. ``None`` where that is not known. Raises ``OSError``.
        """
        children = own_children()
        if children is None:
            return None
        # A child that is being made does not say at once that it is there.
        return [
            pid
            for pid in children - leaders.keys()
            if not (is_starting(pid) or _is_in_own_session(pid) or is_starting(pid))
        ]

    def send(self, pid: int, signum: int) -> None:
        """Signal a process that the last pass found, unless its id is somebody else's by now."""
        with contextlib.suppress(OSError, AttributeError), _opened(os.pidfd_open(pid)) as fd:
            if self._is_the_same(pid):
                signal.pidfd_send_signal(fd, signum)
            return
        # Without pidfds (before Linux 5.3, some sandboxes) a gap of microseconds remains.
        with contextlib.suppress(OSError):
            if self._is_the_same(pid):
                os.kill(pid, signum)

    def owner(self, pid: int, leaders: Mapping[int, str]) -> str | None:
        """Return whose process ``pid`` is by its session or its marker. Raises ``OSError``."""
        with contextlib.suppress(OSError):
            if (owner := leaders.get(os.getsid(pid))) is not None:
                return owner
        return self._marked(pid)

    def saved(self) -> list[tuple[int, int, str | None, int, float]]:
        """Return what the last pass found out, for :meth:`restore`."""
        return [
            (pid, seen.session, seen.owner, seen.start_ticks, seen.seen_at)
            for pid, seen in self._seen.items()
        ]

    def restore(self, saved: list[tuple[int, int, str | None, int, float]]) -> None:
        """Take what :meth:`saved` returned."""
        self._seen = {
            pid: _Seen(session, owner, ticks, seen_at)
            for pid, session, owner, ticks, seen_at in saved
        }

    def _found(self, pids: list[int], leaders: Mapping[int, str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        own = os.getpid()
        now = time.monotonic()
        for pid in pids:
            if pid in leaders or pid == own:
                continue
            try:
                session = os.getsid(pid)
            except OSError:
                continue
            owner = leaders.get(session)
            if owner is None:
                self._seen[pid] = verdict = self._verdict(pid, session, now)
                owner = verdict.owner
            if owner is not None and not is_dead(pid):
                found.setdefault(owner, []).append(pid)
        return found

    def _verdict(self, pid: int, session: int, now: float) -> _Seen:
        seen = self._before.get(pid)
        if seen is not None and seen.session == session:
            if seen.owner is None and now - seen.seen_at < _STRANGER_SECS:
                return seen
            if seen.owner is not None and parent_and_start(pid)[1] == seen.start_ticks:
                return seen
        ppid, ticks = parent_and_start(pid)
        owner = self._marked(pid) or self._inherited(ppid)
        return _Seen(session, owner, ticks, now)

    def _marked(self, pid: int) -> str | None:
        for pair in environment(pid):
            if pair.startswith(self._marker):
                return pair[len(self._marker) :].decode("ascii", "replace")
        return None

    def _inherited(self, ppid: int) -> str | None:
        """Return whose the parent is; a leader's child that left everything is its agent's."""
        if ppid in self._leaders:
            return self._leaders[ppid]
        try:
            owner = self._leaders.get(os.getsid(ppid))
        except OSError:
            return None
        seen = self._seen.get(ppid) or self._before.get(ppid)
        return seen.owner if owner is None and seen is not None else owner

    def _is_the_same(self, pid: int) -> bool:
        seen = self._seen.get(pid)
        if seen is not None:
            return parent_and_start(pid)[1] == seen.start_ticks
        with contextlib.suppress(OSError):
            return os.getsid(pid) in self._leaders
        return False


class GroupTable:
    """Where there is no /proc: the process group is all that can be known of an agent.

    It stands in the lists as one negative number, as in kill(2).
    """

    def members(self, leaders: Mapping[int, str]) -> dict[str, list[int]]:
        """Return the process groups that have a member that is alive."""
        return {agent: [-pid] for pid, agent in leaders.items() if _group_is_alive(pid)}

    def strays(
        self, leaders: Mapping[int, str], is_starting: Callable[[int], bool]
    ) -> list[int] | None:
        """Return what leaders have left behind: that is not known here."""
        return None

    def send(self, pid: int, signum: int) -> None:
        """Signal a group of the last pass."""
        signal_group(-pid, signum)

    def owner(self, pid: int, leaders: Mapping[int, str]) -> str | None:
        """Return whose process ``pid`` is by its process group."""
        with contextlib.suppress(OSError):
            return leaders.get(os.getpgid(pid))
        return None

    def saved(self) -> list[tuple[int, int, str | None, int, float]]:
        """There is nothing to be saved."""
        return []

    def restore(self, saved: list[tuple[int, int, str | None, int, float]]) -> None:
        """There is nothing to be restored."""


Trees = ProcessTable | GroupTable


def choose_trees(instance: str) -> Trees:
    """Return the table that works on this system."""
    if sys.platform == "linux" and os.path.exists("/proc/self/stat"):
        return ProcessTable(instance)
    return GroupTable()


def children() -> list[int]:
    """Return this process's children, the adopted ones too; none where there is no /proc.

    Raises ``OSError``.
    """
    if not os.path.isdir("/proc/self"):
        return []
    own = os.getpid()
    return [pid for pid in processes() if parent_of(pid) == own]


def signal_group(leader: int, *signals: int) -> None:
    """Signal the process group of a leader that has not been reaped."""
    for signum in signals:
        with contextlib.suppress(OSError):
            os.killpg(leader, signum)


def signal_all(trees: Trees, pids: Iterable[int], *signals: int) -> None:
    """Signal each process that the last pass found."""
    for pid in pids:
        for signum in signals:
            trees.send(pid, signum)


def _is_in_own_session(pid: int) -> bool:
    """Whether a process is in this one's session, where no agent's can be; or is there no more."""
    try:
        return os.getsid(pid) == os.getsid(0)
    except ProcessLookupError:
        return True
    except OSError:  # some systems tell nothing of those in other domains
        return False


@contextlib.contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _group_is_alive(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except OSError:  # Darwin says EPERM of a group in which only the dead are left
        return False
    return True
