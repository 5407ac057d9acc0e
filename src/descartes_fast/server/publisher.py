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
_MANY_TOPICS = 16_384
_COMPLAINT_TOPICS = 1024


class Publisher:
    """The publishing socket of a server; owns ``socket``, which is bound already.

    ``on_too_many_topics`` is called now and then while peers subscribe to more topics though
    they have 16,384 of them: libzmq keeps each in some 1,700 bytes, and has no limit.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        counters: Counters,
        *,
        server_id: str,
        on_too_many_topics: Callable[[], None] = lambda: None,
    ) -> None:
        self.topics = Topics()
        self._server_id = server_id.encode()
        self._counters = counters
        self._on_too_many_topics = on_too_many_topics
        self._topics_added = 0
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
            self.topics.remove(topic)
        elif topic.startswith(_SYNC_PREFIX):
            if len(topic) <= _LONGEST_SYNC_BYTES:
                self._publish(topic, self._server_id)
        else:
            self._add(topic)

    def _add(self, topic: bytes) -> None:
        if not self.topics.add(topic):
            self._counters.topics_over_limit += 1
        self._topics_added += 1
        if len(self.topics) >= _MANY_TOPICS and self._topics_added >= _COMPLAINT_TOPICS:
            self._topics_added = 0
            self._on_too_many_topics()
