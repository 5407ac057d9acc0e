"""The XPUB: status updates and logs, each a frame of topic, NUL and message.

XPUB shows each new subscription, which is how the publisher knows what is wanted, and
what lets a subscriber find out that its subscriptions have arrived: it subscribes to
``sync/`` and something random, and gets that topic back, with the id of the server.
"""

from __future__ import annotations

import zmq

from .._core import LogStreamMessage, StatusUpdate, serialize_zmq_message
from ..channel import Channel
from .statistics import Counters
from .topics import Topics

__all__ = ["Publisher"]

_SYNC_PREFIX = b"sync/"
_LONGEST_SYNC_BYTES = 128


class Publisher:
    """The publishing socket of a server; owns ``socket``, which is bound already."""

    def __init__(self, socket: zmq.Socket[bytes], counters: Counters, *, server_id: str) -> None:
        self.topics = Topics()
        self._server_id = server_id.encode()
        self._counters = counters
        self._channel = Channel(socket, self._receive)

    def wants_status(self, agent_id: object) -> bool:
        """Tell whether anybody subscribes to an agent's status."""
        return self.topics.wanted(b"status/" + str(agent_id).encode())

    def publish_status(self, update: StatusUpdate) -> None:
        """Publish a status update under ``status/`` and the agent's id."""
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
            self.topics.remove(topic)
        elif topic.startswith(_SYNC_PREFIX):
            if len(topic) <= _LONGEST_SYNC_BYTES:
                self._publish(topic, self._server_id)
        elif not self.topics.add(topic):
            self._counters.topics_over_limit += 1
