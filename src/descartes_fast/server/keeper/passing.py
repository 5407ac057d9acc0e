"""Descriptors that travel with frames (SCM_RIGHTS); both ends of the connection use this file.

All descriptors of a frame are sent with its first byte and with no other frame's, so they
arrive before the frame is complete and in the order of the frames that name them. A
receiver that has no room for them loses them (MSG_CTRUNC) but still learns that they came.
"""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["MAX_DESCRIPTORS", "Arrivals", "close_all", "receive", "send"]

MAX_DESCRIPTORS = 253
"""What Linux takes in one message (SCM_MAX_FD)."""

_ROOM = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
# Plain numbers: a flag of the module's takes a microsecond to be compared.
_CLOEXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))  # macOS has none: it is set afterwards
_CUT_SHORT = int(socket.MSG_CTRUNC)


def send(peer: socket.socket, data: bytes | bytearray, descriptors: Sequence[int]) -> int:
    """Send some of ``data``, and all ``descriptors`` with its first byte; return how much."""
    if not descriptors:
        return peer.send(data)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    return peer.sendmsg([data], [rights])


def receive(peer: socket.socket, size: int) -> tuple[bytes, list[list[int]]]:
    """Return at most ``size`` bytes and the batches of descriptors that came with them.

    A batch that was lost is there, too short. What is received is closed on exec.
    """
    data, ancillary, flags, _ = peer.recvmsg(size, _ROOM, _CLOEXEC)
    batches = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
            batches.append(numbers.tolist())
    if not _CLOEXEC:
        for fd in (fd for batch in batches for fd in batch):
            os.set_inheritable(fd, False)
    if flags & _CUT_SHORT and not batches:
        batches.append([])
    return data, batches


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors; one that is closed already is fine."""
    for fd in descriptors:
        try:  # noqa: SIM105 - contextlib.suppress() would cost as much as the call
            os.close(fd)
        except OSError:
            pass


class Arrivals:
    """Batches that wait for the frames that name them."""

    def __init__(self) -> None:
        self._batches: deque[list[int]] = deque()

    def put(self, batches: Iterable[list[int]]) -> None:
        """Keep what :func:`receive` returned."""
        self._batches.extend(batches)

    def take(self, header: Mapping[str, Any]) -> dict[str, int] | None:
        """Return a frame's descriptors by their names, or ``None`` where they were lost.

        For frames that name each once: not for the reply to ``duplicates``.
        """
        names = header.get("fds") or []
        batch = self.take_list(header)
        return None if batch is None else dict(zip(names, batch, strict=True))

    def take_list(self, header: Mapping[str, Any]) -> list[int] | None:
        """Return a frame's descriptors in the order of its names, or ``None`` if they were lost."""
        names = header.get("fds") or []
        if not names:
            return []
        batch = self._batches.popleft() if self._batches else []
        if len(batch) == len(names):
            return batch
        close_all(batch)
        return None

    def close(self) -> None:
        """Close what nobody took."""
        while self._batches:
            close_all(self._batches.popleft())
