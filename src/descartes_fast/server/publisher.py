"""The XPUB: status updates and logs, each a frame of topic, NUL and message.

XPUB shows each new subscription, which is how the publisher knows what is wanted, and
what lets a subscriber find out that its subscriptions have arrived: it subscribes to
``sync/`` and something random, and gets that topic back, with the id of the server.
"""

from __future__ import annotations

from collections.abc import Callable

import zmq

from .._core import LogStreamMessage, StatusUpdate, serialize_zmq_message
from ..channel import Channel
from .statistics import Counters
from .topics import Topics

__all__ = ["Publisher"]

_SYNC_PREFIX = b"sync/"
_LONGEST_SYNC_BYTES = 128
# All in bytes of topics; libzmq keeps some 45 bytes in a tree for each of them.
_MANY_BYTES = 640 * 1024  # of 16,000 agents
_HEAVY_SUBSCRIBER_BYTES = 256 * 1024  # some 5,700 topics of agents
_TOO_MANY_BYTES = 4 * 1024 * 1024
_BETWEEN_LOOKS_BYTES = 40 * 1024


class Publisher:
    """The publishing socket of a server; owns ``socket``, which is bound already.

    libzmq keeps whatever topics peers subscribe to, and has no limit. While they subscribe to
    more though their topics have 640 KiB (30 MiB in libzmq), ``hang_up_heaviest(least_bytes)``
    is called now and then: it ends the connection that has sent the most, if that is
    ``least_bytes``: 256 KiB, and anything at all where the topics have 4 MiB.
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
        self._held_bytes = 0
        self._added_bytes = 0
        """Since the last look for the heaviest."""
        self._channel = Channel(socket, self._receive)

    def wants_status(self, agent_id: str) -> bool:
        """Tell whether anybody subscribes to the status of the agent of this id."""
        return self.topics.wanted(b"status/" + agent_id.encode())

    def publish_status(self, update: StatusUpdate) -> None:
        """Publish a status update under ``status/`` and the agent's id."""
        if self.topics.is_empty:
            return
        topic = b"status/" + str(update.agent_id).encode()
        if self.topics.wanted(topic) and self._publish(topic, serialize_zmq_message(update)):
            self._counters.status_published += 1

    def publish_log(self, message: LogStreamMessage, size: int) -> None:
        """Publish ``size`` bytes of output under the agent's id."""
        topic = str(message.agent_id).encode()
        if self._publish(topic, serialize_zmq_message(message)):
            self._counters.logs_published += 1
            self._counters.log_bytes_published += size

    def close(self, *, linger_ms: int) -> None:
        """Close the socket; twice is fine."""
        self._channel.close(linger_ms=linger_ms)

    def _publish(self, topic: bytes, body: bytes) -> bool:
        return not self._channel.closed and self._channel.send((b"%b\0%b" % (topic, body),))

    def _receive(self, frames: list[bytes]) -> None:
        kind, topic = frames[0][:1], frames[0][1:]
        if len(frames) > 1 or kind not in (b"\0", b"\1"):
            self._counters.malformed += 1
        elif kind == b"\0":
            self._held_bytes -= len(topic)
            self.topics.remove(topic)
        else:
            self._hold(topic)
            self._add(topic)

    def _add(self, topic: bytes) -> None:
        if topic.startswith(_SYNC_PREFIX):
            if len(topic) <= _LONGEST_SYNC_BYTES:
                self._publish(topic, self._server_id)
        elif not self.topics.add(topic):
            self._counters.topics_over_limit += 1

    def _hold(self, topic: bytes) -> None:
        """Count what libzmq keeps, whatever it is: it tells of a topic once, and of its end."""
        self._held_bytes += len(topic)
        self._added_bytes += len(topic)
        if self._held_bytes >= _MANY_BYTES and self._added_bytes >= _BETWEEN_LOOKS_BYTES:
            self._added_bytes = 0
            too_many = self._held_bytes >= _TOO_MANY_BYTES
            self._hang_up_heaviest(0 if too_many else _HEAVY_SUBSCRIBER_BYTES)
