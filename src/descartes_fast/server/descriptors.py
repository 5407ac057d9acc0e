"""File descriptors: as many as the system lets us have, and the last ones kept from clients.

A client costs one as soon as it is accepted, before it has said a word. When none is left no
output can be read, and libzmq 4.3.5 aborts the whole process when ``accept`` on an ipc
endpoint fails (EMFILE is not among the errors that ``ipc_listener.cpp`` expects).
"""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import sys

__all__ = ["hang_up", "is_one_of_the_last", "raise_descriptor_limit", "received_bytes"]

_LAST_SHARE = 8
_BYTES_RECEIVED = struct.Struct("=Q")
_BYTES_RECEIVED_AT = 128
_MOST_KEPT = 512  # as many as can queue to be accepted while the event loop is busy


def raise_descriptor_limit() -> int:
    """Raise this process's limit to the most that is allowed; return what it was before.

    Programs that use ``select`` must not inherit that: give the old limit to those.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def is_one_of_the_last(fd: int) -> bool:
    """Tell whether a new descriptor is among the last: all below its number are taken."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit != resource.RLIM_INFINITY and fd >= limit - min(limit // _LAST_SHARE, _MOST_KEPT)


def hang_up(fd: int, endpoint: str) -> None:
    """End a connection that libzmq has accepted at ``endpoint``; libzmq notices and closes it.

    It may have closed it before, and the number may be another's by now: what is no
    connection to this endpoint is left alone.
    """
    with contextlib.suppress(OSError):
        connection = socket.socket(fileno=fd)
        try:
            if _is_at(connection, endpoint):
                connection.shutdown(socket.SHUT_RDWR)
        finally:
            connection.detach()


def received_bytes(fd: int, endpoint: str) -> int:
    """Return how much a connection to ``endpoint`` has ever brought; 0 where nobody knows.

    Linux tells it of TCP connections (``tcpi_bytes_received``, ``linux/tcp.h``).
    """
    with contextlib.suppress(OSError, AttributeError, struct.error):
        connection = socket.socket(fileno=fd)
        try:
            if sys.platform == "linux" and _is_at(connection, endpoint):
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                return int(_BYTES_RECEIVED.unpack_from(info, _BYTES_RECEIVED_AT)[0])
        finally:
            connection.detach()
    return 0


def _is_at(connection: socket.socket, endpoint: str) -> bool:
    name = connection.getsockname()
    if connection.family == socket.AF_UNIX:
        return bool(name == endpoint.removeprefix("ipc://"))
    return endpoint.rpartition(":")[2] == str(name[1])
