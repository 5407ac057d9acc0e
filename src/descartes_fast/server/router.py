"""The ROUTER: requests in, replies out, and a bounded queue for each client that is slow.

Where libzmq's functions are found, a thread without the GIL is before the event loop and answers
what ``QuickReplies`` knows (``_core/front.pyx``); what is here is for all other requests.

With ``ROUTER_MANDATORY`` a send that cannot be queued fails instead of being dropped in
silence; what one client cannot take now waits here, in its own queue, and is counted
where it must be dropped. Nobody waits for anybody else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

import zmq

from .._core.frames import LIBZMQ_FOUND
from .._core.front import Front
from .._core.quick_status import QuickReplies
from ..channel import Channel
from .envelope import Envelope, split_envelope
from .statistics import Counters

__all__ = ["Router"]

_FIRST_RETRY_SECS = 0.001
_SLOWEST_RETRY_SECS = 0.05
_TOTAL_QUEUES = 8  # all queues together hold at most this many times one client's limit


class Router:
    """The command socket of a server; owns ``socket``, which is bound already.

    ``on_request`` is given each request's envelope and body, on the loop, in the order of
    arrival. ``queue_bytes`` bounds what waits for one client. Replies to requests that came
    together are sent together, and so are those of one turn of the loop behind the first: a libzmq
    that is busy sending needs no waking for each. Requests that ``quick`` answers may never come to
    ``on_request``; :meth:`settle` counts them.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_request: Callable[[Envelope, bytes], None],
        *,
        quick: QuickReplies,
        queue_bytes: int,
        counters: Counters,
    ) -> None:
        self._quick = quick
        self._on_request = on_request
        self._queue_bytes = queue_bytes
        self._counters = counters
        self._queues: dict[bytes, _Queue] = {}
        self._queued_bytes = 0
        self._retry_secs = _FIRST_RETRY_SECS
        self._retry: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._prompt: list[tuple[Envelope, bytes]] = []
        self._is_holding = False
        front = Front(socket, quick) if LIBZMQ_FOUND else None
        try:
            self._channel = Channel(
                socket, self._receive, on_delivered=self._send_prompt, frames=front
            )
        except BaseException:
            if front is not None:
                front.close()
            raise

    def reply(self, envelope: Envelope, body: bytes) -> None:
        """Send a reply, or queue it if the client takes no more just now.

        If the client is gone or its queue is full the reply is dropped and counted.
        """
        if self._channel.delivering or self._is_holding:
            self._prompt.append((envelope, body))
            return
        self._send_all([(envelope, body)])
        self._is_holding = True
        self._loop.call_soon(self._end_holding)

    @property
    def queued_replies(self) -> int:
        """How many replies wait for clients that are slow."""
        return sum(len(queue.replies) for queue in self._queues.values())

    def settle(self) -> None:
        """Count what was answered without the event loop until now."""
        requests, request_bytes, replies, reply_bytes, dropped = self._quick.take_counts()
        counters = self._counters
        counters.requests_received += requests
        counters.request_bytes += request_bytes
        counters.commands += requests
        counters.replies_sent += replies
        counters.reply_bytes += reply_bytes
        counters.replies_dropped += dropped

    def close(self, *, linger_ms: int) -> None:
        """Close the socket; replies that still wait are counted as dropped. Twice is fine."""
        self._send_prompt()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._counters.replies_dropped += self.queued_replies
        self._queues.clear()
        self._queued_bytes = 0
        self._channel.close(linger_ms=linger_ms)

    def _end_holding(self) -> None:
        self._is_holding = False
        self._send_prompt()

    def _send_prompt(self) -> None:
        """Send what was replied while requests were being taken in, or since the first reply."""
        prompt, self._prompt = self._prompt, []
        if prompt:
            self._send_all(prompt)

    def _send_all(self, replies: list[tuple[Envelope, bytes]]) -> None:
        """Send replies, behind those that wait for the same clients."""
        if self._queues:
            for envelope, body in replies:
                if envelope[0] in self._queues:
                    self._queue(envelope, body)
            replies = [reply for reply in replies if reply[0][0] not in self._queues]
        for (envelope, body), sent in zip(replies, self._sent(replies), strict=True):
            if sent is False:
                self._queue(envelope, body)

    def _queue(self, envelope: Envelope, body: bytes) -> None:
        """Let a reply wait until its client takes more."""
        queue = self._queues.get(envelope[0])
        if queue is None:
            queue = self._queues[envelope[0]] = _Queue()
            self._quick.pass_over(envelope[0])
        if (
            queue.size + len(body) > self._queue_bytes
            or self._queued_bytes + len(body) > self._queue_bytes * _TOTAL_QUEUES
        ):
            self._counters.replies_dropped += 1
        else:
            queue.replies.append((envelope, body))
            queue.size += len(body)
            self._queued_bytes += len(body)
        if self._retry is None:
            self._retry = self._loop.call_later(self._retry_secs, self._send_queued)

    def _receive(self, frames: list[bytes]) -> None:
        parts = split_envelope(frames)
        if parts is None:
            self._counters.malformed += 1
            return
        envelope, body = parts
        self._counters.requests_received += 1
        self._counters.request_bytes += len(body)
        self._on_request(envelope, body)

    def _sent(self, replies: list[tuple[Envelope, bytes]]) -> list[bool | None]:
        """Return of each reply whether it was sent; ``None``: its client is gone."""
        try:
            outcomes = self._channel.send_all([(*envelope, body) for envelope, body in replies])
        except zmq.ZMQError:  # the socket was closed, or its context terminated behind us
            outcomes = [zmq.ENOTSOCK] * len(replies)
        told: list[bool | None] = []
        for (_, body), error in zip(replies, outcomes, strict=True):
            if error == 0:
                self._counters.replies_sent += 1
                self._counters.reply_bytes += len(body)
                told.append(True)
            elif error == zmq.EAGAIN:
                told.append(False)
            else:  # EHOSTUNREACH: no such peer, or no longer
                self._counters.replies_dropped += 1
                told.append(None)
        return told

    def _send_queued(self) -> None:
        """Try each slow client again; a ROUTER does not say when one of them has room."""
        self._retry = None
        progress = False
        for identity in list(self._queues):
            progress |= self._send_queue_of(identity)
        if not self._queues:
            self._retry_secs = _FIRST_RETRY_SECS
            return
        self._retry_secs = (
            _FIRST_RETRY_SECS if progress else min(self._retry_secs * 2, _SLOWEST_RETRY_SECS)
        )
        self._retry = self._loop.call_later(self._retry_secs, self._send_queued)

    def _send_queue_of(self, identity: bytes) -> bool:
        queue = self._queues[identity]
        progress = False
        while queue.replies:
            envelope, body = queue.replies[0]
            (sent,) = self._sent([(envelope, body)])
            if sent is False:
                return progress
            if sent is None:
                self._counters.replies_dropped += len(queue.replies) - 1
                self._queued_bytes -= sum(_sizes(queue.replies))
                queue.replies.clear()
                break
            progress = True
            queue.replies.popleft()
            queue.size -= len(body)
            self._queued_bytes -= len(body)
        del self._queues[identity]
        self._quick.take_up(identity)
        return progress


class _Queue:
    """What waits for one client."""

    __slots__ = ("replies", "size")

    def __init__(self) -> None:
        self.replies: deque[tuple[Envelope, bytes]] = deque()
        self.size = 0


def _sizes(replies: Iterable[tuple[Envelope, bytes]]) -> Iterable[int]:
    return (len(body) for _, body in replies)
