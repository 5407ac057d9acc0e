"""Who may connect to the keeper: its own user, but none of its agents.

An agent that could command the keeper could end its siblings. Refused are the keeper's
descendants and what belongs to an agent by its session or its marker (agents taken over
from an earlier keeper do not descend from this one). That holds for processes as they
come; one that asks a stranger of the same user to speak for it is beyond what a socket
shows. So nobody takes the place of a server that lives and is connected. Where the system
does not name the peer (macOS) only the user counts.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable

from .passing import close_all
from .proc import parent_of
from .system import SHORTAGES, is_readable

__all__ = ["may_connect", "stands_against"]

_SO_PEERPIDFD = 77  # Linux 6.5
_TRIES = 3  # a parent that exits in the middle of a walk breaks it


def may_connect(peer: socket.socket, is_agents: Callable[[int], bool]) -> bool:
    """Whether ``peer`` may speak to this keeper; ``is_agents`` knows agents' processes.

    Raises ``OSError`` where that cannot be seen now.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return _effective_uid(peer) in (os.geteuid(), 0)
    pid, uid = _credentials(peer)
    if uid not in (os.geteuid(), 0):
        return False
    if pid == 0:
        return True  # of a pid namespace that this one does not see: no descendant
    handle = _handle(peer, pid)
    try:
        for _ in range(_TRIES):
            ancestry = _ancestry(pid)
            if ancestry is not None:
                break
        if ancestry is None or os.getpid() in ancestry or is_agents(pid):
            return False
        # Who has exited by now may have left its id, and the walk, to another process.
        return handle is None or not is_readable(handle)
    finally:
        if handle is not None:
            close_all([handle])


def stands_against(held: socket.socket, new: socket.socket) -> bool:
    """Whether ``held`` is the connection of a living process that is not the one of ``new``.

    False where that cannot be known: without SO_PEERCRED or pidfds, from another pid namespace.
    Raises ``OSError``.
    """
    if not hasattr(socket, "SO_PEERCRED") or _is_hung_up(held):
        return False
    pid, _ = _credentials(held)
    if pid in (0, _credentials(new)[0]):
        return False
    handle = _handle(held, pid)
    if handle is None:
        return False
    try:
        return not is_readable(handle)
    finally:
        close_all([handle])


def _credentials(peer: socket.socket) -> tuple[int, int]:
    """Return the other end's process and user."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid


def _is_hung_up(peer: socket.socket) -> bool:
    poll = select.poll()
    poll.register(peer, getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))


def _effective_uid(peer: socket.socket) -> int:
    """Return the user of the other end where there is LOCAL_PEERCRED (macOS, BSD)."""
    option = getattr(socket, "LOCAL_PEERCRED", 1)
    _, uid = struct.unpack_from("=II", peer.getsockopt(0, option, 76))
    return int(uid)


def _handle(peer: socket.socket, pid: int) -> int | None:
    """Return a pidfd of the other end; ``None`` where there is none. Raises ``OSError``."""
    try:
        handle = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
        return int(struct.unpack("i", handle)[0])
    except OSError:
        pass
    try:
        return os.pidfd_open(pid)
    except AttributeError:
        return None
    except OSError as error:
        # Whoever comes while nothing is left must not be let in unseen.
        if error.errno in SHORTAGES:
            raise
        return None


def _ancestry(pid: int) -> list[int] | None:
    """Return ``pid`` and its ancestors up to the first process; ``None`` if one went away."""
    line = []
    while pid > 1:
        line.append(pid)
        parent = parent_of(pid)
        if parent is None:
            return None
        pid = parent
    return line
