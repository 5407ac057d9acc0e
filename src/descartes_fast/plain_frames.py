"""Whole messages in and out of a socket by pyzmq's calls, where libzmq's own cannot be found.

The same interface as ``_core/frames.pyx``, which says why there are two.
"""

from __future__ import annotations

import errno
from typing import Any, TypeVar

import zmq

from ._core import LogStreamMessage, StatusUpdate
from ._core.publications import Sorter

__all__ = ["PlainFrames"]

R = TypeVar("R")

# As plain ints: each conversion of pyzmq's enums costs more than the call it is for.
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
_RCVMORE = int(zmq.RCVMORE)
_EVENTS = int(zmq.EVENTS)


class PlainFrames:
    """The frames of one pyzmq socket, on the thread that the socket is used on."""

    def __init__(self, socket: zmq.Socket[Any]) -> None:
        # A shadow has none of what subclasses add to a socket, zmq.asyncio's futures for one.
        self._socket: zmq.Socket[bytes] = zmq.Socket(shadow=socket.underlying)
        self._owner = socket

    @property
    def fd(self) -> int:
        """What becomes readable when libzmq has news for the socket."""
        return int(self._socket.getsockopt(zmq.FD))

    def events(self) -> int:
        """Return what the socket is ready for (``zmq.POLLIN``, ``POLLOUT``)."""
        self._check_open()
        return int(self._socket.get(_EVENTS))

    def receive(self, limit: int) -> list[list[bytes]]:
        """Return at most ``limit`` messages, each a list of frames; fewer: there are no more."""
        self._check_open()
        messages: list[list[bytes]] = []
        while len(messages) < limit and (frames := self._receive_one()) is not None:
            messages.append(frames)
        return messages

    def receive_published(
        self, limit: int, routes: dict[bytes, R]
    ) -> tuple[int, list[tuple[R | None, list[LogStreamMessage | StatusUpdate] | bytes]]]:
        """Return how many messages there were, at most ``limit``, and the ``runs`` they make."""
        self._check_open()
        sorter = Sorter(routes)
        count = 0
        while count < limit and not sorter.full and (frames := self._receive_one()) is not None:
            sorter.add(frames[0])
            count += 1
        return count, sorter.runs

    def send(self, frames: tuple[bytes, ...]) -> int:
        """Send one message without waiting; return how many of its frames libzmq has taken."""
        self._check_open()
        last = len(frames) - 1
        for position, frame in enumerate(frames):
            if not self._send_one(frame, more=position < last):
                return position
        return len(frames)

    def send_rest(self, frames: tuple[bytes, ...]) -> None:
        """Give libzmq what is left of a message that it discards."""
        self._check_open()
        last = len(frames) - 1
        for position, frame in enumerate(frames):
            self._send_one(frame, more=position < last)

    def send_all(self, messages: list[tuple[bytes, ...]]) -> list[int]:
        """Send messages without waiting; return for each 0, or the errno of what is in its way."""
        self._check_open()
        return [self._send_message(frames) for frames in messages]

    def close(self) -> None:
        """Nothing: the socket is its owner's to close."""

    def _receive_one(self) -> list[bytes] | None:
        try:
            frames = [self._socket.recv(_NOBLOCK)]
            while self._socket.get(_RCVMORE):
                frames.append(self._socket.recv(_NOBLOCK))
        except zmq.Again:
            return None
        return frames

    def _send_message(self, frames: tuple[bytes, ...]) -> int:
        try:
            taken = self.send(frames)
        except zmq.ZMQError as failure:
            return failure.errno or 0
        if 0 < taken < len(frames):
            self.send_rest(frames[taken + 1 :])
        return 0 if taken == len(frames) else errno.EAGAIN

    def _send_one(self, frame: bytes, *, more: bool) -> bool:
        try:
            self._socket.send(frame, _NOBLOCK_MORE if more else _NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _check_open(self) -> None:
        if self._owner.closed:
            raise zmq.ZMQError(zmq.ENOTSOCK)
