"""How many clients may be connected: a ZAP handler that turns away those above the limit.

libzmq has no limit of its own, and a connection costs a descriptor and a queue. Each new
one is asked about when its handshake is done (ZeroMQ RFC 27, ``ZAP_DOMAIN``); status 300
closes it without an error, and it may try again. One that takes one of the last
descriptors is not asked about first: it is ended as soon as it is accepted.
"""

from __future__ import annotations

import zmq

from ..channel import Channel, Monitor, MonitorEvent
from .descriptors import hang_up, is_one_of_the_last, received_bytes
from .statistics import Counters

__all__ = ["Admission"]

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_ZAP_VERSION = b"1.0"
_EVENTS = int(zmq.EVENT_ACCEPTED) | int(zmq.EVENT_DISCONNECTED)


class Admission:
    """Counts the connections of each watched socket and refuses those above ``max_clients``.

    So are those that take one of the last file descriptors (see :mod:`.descriptors`).
    One for a context, made before the context's sockets are bound.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], max_clients: int, counters: Counters
    ) -> None:
        self._max_clients = max_clients
        self._counters = counters
        self._connections: dict[bytes, int] = {}
        self._accepted: dict[str, dict[int, str]] = {}
        """The endpoints of the connections that a socket has, by their descriptors."""
        self._monitors: list[Monitor] = []
        handler = context.socket(zmq.ROUTER)
        try:
            handler.bind(_ZAP_ENDPOINT)
            self._channel = Channel(handler, self._decide)
        except BaseException:
            handler.close(linger=0)
            raise

    def watch(self, name: str, socket: zmq.Socket[bytes]) -> None:
        """Count and limit the connections of a socket that is not bound yet."""
        domain = name.encode()
        socket.set_string(zmq.ZAP_DOMAIN, name)
        self._connections[domain] = 0
        accepted = self._accepted[name] = {}

        def count(event: MonitorEvent) -> None:
            if event.event == zmq.EVENT_ACCEPTED:
                self._connections[domain] += 1
                accepted[event.value] = event.endpoint
                self._spare_the_last(event.value, event.endpoint)
            else:
                self._connections[domain] -= 1
                accepted.pop(event.value, None)

        self._monitors.append(Monitor(socket, count, events=_EVENTS))

    def connections(self, name: str) -> int:
        """Return how many connections a socket has, those in their handshake among them."""
        return self._connections.get(name.encode(), 0)

    def hang_up_heaviest(self, name: str, least_bytes: int) -> None:
        """End the connection that has sent a socket the most, if that is ``least_bytes`` or more.

        Nobody is hung up on where the system does not tell what a connection has sent, ever.
        """
        sent = [
            (received_bytes(fd, endpoint), fd, endpoint)
            for fd, endpoint in self._accepted[name].items()
        ]
        size, fd, endpoint = max(sent, default=(0, -1, ""))
        if size >= max(least_bytes, 1):
            self._counters.refused_clients += 1
            hang_up(fd, endpoint)

    def close(self) -> None:
        """Stop watching; before the watched sockets are closed. Twice is fine."""
        for monitor in self._monitors:
            monitor.close()
        self._channel.close()

    def _decide(self, frames: list[bytes]) -> None:
        """Answer a ZAP request: version, request id, domain, address, identity, mechanism."""
        identity, _, version, request_id, domain = frames[:5]
        if version != _ZAP_VERSION:
            return
        admitted = self._connections.get(domain, 0) <= self._max_clients
        if not admitted:
            self._counters.refused_clients += 1
        verdict = (b"200", b"OK") if admitted else (b"300", b"too many clients")
        self._channel.send((identity, b"", _ZAP_VERSION, request_id, *verdict, b"", b""))

    def _spare_the_last(self, fd: int, endpoint: str) -> None:
        if is_one_of_the_last(fd):
            self._counters.refused_clients += 1
            hang_up(fd, endpoint)
