"""The ZeroMQ options of a client's sockets: limits, keepalive, how they reconnect."""

from __future__ import annotations

import zmq

from ._core import MAX_MESSAGE_SIZE
from .config import ZmqRunnerConfig

__all__ = ["set_client_options"]

# A server that accepts and then says nothing is given up after this long.
_HANDSHAKE_IVL_MS = 5000
_FIRST_RECONNECT_MS = 100
_HIGH_WATER_MARK = 10_000
# A publication carries its topic before the message.
_TOPIC_ROOM_BYTES = 4096


def set_client_options(socket: zmq.Socket[bytes], endpoint: str, config: ZmqRunnerConfig) -> None:
    """Set what all of a client's sockets have in common.

    No ``HEARTBEAT_IVL``: peers that speak ZMTP 3.0 do not know PING and hang up.
    """
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_SIZE + _TOPIC_ROOM_BYTES)
    socket.set(zmq.SNDHWM, _HIGH_WATER_MARK)
    socket.set(zmq.RCVHWM, _HIGH_WATER_MARK)
    socket.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_IVL_MS)
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, 30)
    socket.set(zmq.TCP_KEEPALIVE_INTVL, 10)
    socket.set(zmq.TCP_KEEPALIVE_CNT, 3)
    if "[" in endpoint:
        socket.set(zmq.IPV6, 1)
    if not config.auto_reconnect:
        socket.set(zmq.RECONNECT_IVL, -1)
        return
    longest_ms = max(1, round(config.reconnect_delay_secs * 1000))
    socket.set(zmq.RECONNECT_IVL, min(_FIRST_RECONNECT_MS, longest_ms))
    socket.set(zmq.RECONNECT_IVL_MAX, longest_ms)
