"""The two ZeroMQ sockets of a server and their options: every queue and size bounded."""

from __future__ import annotations

import zmq

from .._core import MAX_MESSAGE_SIZE

__all__ = ["IO_THREADS", "LINGER_MS", "command_socket", "publishing_socket"]

IO_THREADS = 2
"""Of libzmq: one for commands, which must not wait for a flood of logs, one for publications."""

LINGER_MS = 500
"""How long what is queued has to leave when a server closes."""

# An envelope's frames are small.
_ROOM_BYTES = 4096
# A peer that connects and says nothing is closed within 2 s; libzmq looks at its timers late
# by up to its own latency.
_HANDSHAKE_IVL_MS = 1500
_REPLIES_QUEUED = 256  # for each client; what does not fit waits in the router's own queue
# Of a topic some 40 bytes are used, or as many as its asker likes for an echo, and libzmq keeps a
# node of a tree for each. ZMTP 3.1 has ten bytes before it.
_LONGEST_SUBSCRIPTION_BYTES = 128 + 10
# What has arrived by TCP is taken in even after its sender is hung up on. The kernel doubles this,
# and does not let it grow, as it does to megabytes where nobody says how much.
_SUBSCRIPTIONS_ARRIVED_BYTES = 64 * 1024
# libzmq takes in all that is there in one call of its own, and is never done while its I/O thread
# puts more there than it takes: a peer could keep the server there for as long as it likes. With
# so short a queue the I/O thread waits, and now and then is late, also on a busy machine.
_SUBSCRIPTIONS_QUEUED = 4
_PUBLICATIONS_QUEUED = 1000  # for each subscriber; shared between subscribers of one topic
_BACKLOG = 512
_OF_COMMANDS, _OF_PUBLICATIONS = 0b01, 0b10  # I/O threads, as bits


def command_socket(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """Return a ROUTER that says when it cannot queue a reply, and gives nobody's identity away."""
    socket = context.socket(zmq.ROUTER)
    _set_common_options(socket)
    socket.set(zmq.AFFINITY, _OF_COMMANDS)
    socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_SIZE + _ROOM_BYTES)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    socket.set(zmq.ROUTER_HANDOVER, 0)
    socket.set(zmq.SNDHWM, _REPLIES_QUEUED)
    socket.set(zmq.RCVHWM, _REPLIES_QUEUED)
    return socket


def publishing_socket(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """Return an XPUB that drops for a slow subscriber instead of making anybody wait."""
    socket = context.socket(zmq.XPUB)
    _set_common_options(socket)
    socket.set(zmq.AFFINITY, _OF_PUBLICATIONS)
    socket.set(zmq.MAXMSGSIZE, _LONGEST_SUBSCRIPTION_BYTES)
    socket.set(zmq.RCVHWM, _SUBSCRIPTIONS_QUEUED)
    socket.set(zmq.RCVBUF, _SUBSCRIPTIONS_ARRIVED_BYTES)
    socket.set(zmq.SNDHWM, _PUBLICATIONS_QUEUED)
    return socket


def _set_common_options(socket: zmq.Socket[bytes]) -> None:
    """Set what both have in common.

    No ``HEARTBEAT_IVL``: peers that speak ZMTP 3.0 do not know PING and hang up. TCP keepalive
    finds the ones that are gone.
    """
    socket.set(zmq.LINGER, LINGER_MS)
    socket.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_IVL_MS)
    socket.set(zmq.BACKLOG, _BACKLOG)
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, 30)
    socket.set(zmq.TCP_KEEPALIVE_INTVL, 10)
    socket.set(zmq.TCP_KEEPALIVE_CNT, 3)
