"""The channel of a SUB socket: publications decoded, and put together by who wants them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import zmq

from ._core import LogStreamMessage, StatusUpdate
from .channel import Channel, usual_frames

__all__ = ["Publication", "PublicationChannel"]

R = TypeVar("R")

Publication = LogStreamMessage | StatusUpdate

# Publications come in floods, and are quickly taken: the fixed costs of a batch are shared by more.
_BATCH = 512


class PublicationChannel(Channel, Generic[R]):
    """A channel that gives on runs of publications instead of lists of frames.

    A run is a route and the messages, one after another, whose topics have that very route in
    ``routes``; or ``None`` and a frame that is not that plain. What has an empty route is
    received and not given on.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        routes: dict[bytes, R],
        on_run: Callable[[tuple[R | None, list[Publication] | bytes]], None],
    ) -> None:
        frames = usual_frames(socket)
        super().__init__(socket, frames=frames, batch=_BATCH)
        self._receive_published = frames.receive_published
        self._routes = routes
        self._on_run = on_run

    def _take(self, limit: int) -> int:
        try:
            count, runs = self._receive_published(limit, self._routes)
        except zmq.ZMQError:
            self.close()
            return 0
        self.received_count += count
        if runs:
            self._deliver(runs, self._on_run)
        return count
