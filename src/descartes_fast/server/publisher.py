"""The XPUB: status updates and logs, each a frame of topic, NUL and message.

XPUB shows each new subscription, which is how the publisher knows what is wanted, and
what lets a subscriber find out that its subscriptions have arrived: it subscribes to
``sync/`` and something random, and gets that topic back, with the id of the server.
"""

from __future__ import annotations

from collections.abc import Callable

import zmq

from .._core import LogStreamMessage, StatusUpdate, serialize_zmq_message
from .._core.ids import id_text
from ..channel import Channel
from .statistics import Counters
from .topics import Topics

__all__ = ["Publisher"]

_SYNC_PREFIX = b"sync/"
# All in bytes of topics; libzmq keeps some 45 bytes in a tree for each of them.
_MANY_BYTES = 640 * 1024  # of 15,000 agents
_TOO_MANY_BYTES = 4 * 1024 * 1024
# What one connection has sent, ever: 55 bytes for an agent, 165 to follow one and leave it again.
_HEAVY_SUBSCRIBER_BYTES = 512 * 1024
_ENDLESS_SUBSCRIBER_BYTES = 8 * 1024 * 1024
_BETWEEN_LOOKS_BYTES = 40 * 1024


class Publisher:
    """The publishing socket of a server; owns ``socket``, which is bound already.

    libzmq keeps whatever topics peers subscribe to, and has no limit. While they subscribe to
    more ``hang_up_heaviest(least_bytes)`` is called now and then: it ends the connection that has
    sent the most, if that is ``least_bytes``. Those are 512 KiB if the topics of all have 640 KiB
    (30 MiB in libzmq), anything at all if they have 4 MiB, and 8 MiB in any case: what is cancelled
    is not known to be gone, as libzmq tells of a cancel by whoever never subscribed, too.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        counters: Counters,
        *,
        server_id: str,
        hang_up_heaviest: Callable[[int], None] = lambda least_bytes: None,
    ) -> None:
        self.topics = Topics()
        self._server_id = server_id.encode()
        self._counters = counters
        self._hang_up_heaviest = hang_up_heaviest
        self._held: set[bytes] = set()
        self._held_bytes = 0
        self._added_bytes = 0
        """Since the last look for the heaviest."""
        self._channel = Channel(socket, self._receive)

    def wants_status(self, agent_id: str) -> bool:
        """Tell whether anybody subscribes to the status of the agent of this id."""
        return self.topics.wanted(b"status/" + agent_id.encode())

    def publish_status(self, update: StatusUpdate) -> None:
        """Publish a status update under ``status/`` and the agent's id."""
        topic = b"status/" + id_text(update.agent_id).encode()
        if self._publish(topic, serialize_zmq_message(update)):
            self._counters.status_published += 1

    def publish_log(self, message: LogStreamMessage, size: int) -> None:
        """Publish ``size`` bytes of output under the agent's id."""
        topic = id_text(message.agent_id).encode()
        if self._publish(topic, serialize_zmq_message(message)):
            self._counters.logs_published += 1
            self._counters.log_bytes_published += size

    def close(self, *, linger_ms: int) -> None:
        """Close the socket; twice is fine."""
        self._channel.close(linger_ms=linger_ms)

    def _publish(self, topic: bytes, body: bytes) -> bool:
        return not self._channel.closed and self._channel.send((b"%b\0%b" % (topic, body),))

    def _receive(self, frames: list[bytes]) -> None:
        """Take what libzmq has done already: with each frame of a message by itself."""
        if len(frames) > 1 or frames[0][:1] not in (b"\0", b"\1"):
            self._counters.malformed += 1
        for frame in frames:
            kind, topic = frame[:1], frame[1:]
            if kind == b"\1":
                self._hold(topic)
                self._add(topic)
            elif kind == b"\0" and topic in self._held:
                self._held.discard(topic)
                self._held_bytes -= len(topic)
                self.topics.remove(topic)

    def _add(self, topic: bytes) -> None:
        if topic.startswith(_SYNC_PREFIX):
            self._publish(topic, self._server_id)
        elif not self.topics.add(topic):
            self._counters.topics_over_limit += 1

    def _hold(self, topic: bytes) -> None:
        """Count what libzmq keeps, whatever it is."""
        self._added_bytes += len(topic)
        if topic not in self._held:
            self._held.add(topic)
            self._held_bytes += len(topic)
        if self._added_bytes >= _BETWEEN_LOOKS_BYTES:
            self._added_bytes = 0
            self._hang_up_heaviest(self._least_bytes())

    def _least_bytes(self) -> int:
        if self._held_bytes >= _TOO_MANY_BYTES:
            return 0
        return (
            _HEAVY_SUBSCRIBER_BYTES
            if self._held_bytes >= _MANY_BYTES
            else _ENDLESS_SUBSCRIBER_BYTES
        )
