"""One connecting socket of a client, with its channel and its monitor: opened whole, or not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import zmq

from .channel import Channel, Monitor, MonitorEvent
from .config import ZmqRunnerConfig
from .errors import CommunicationError, UsageError
from .socket_options import set_client_options

__all__ = ["Link", "descriptors_left", "new_context"]

# A first socket with its context, its monitor and its connection takes nine. Within
# libzmq a shortage is an abort in some places, so there must be enough before it is asked.
_DESCRIPTORS_NEEDED = 12
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class Link:
    """A socket of one ``kind`` that connects to ``endpoint``, on the running event loop.

    ``open_channel`` makes its channel, ``on_event`` is told what its monitor sees, ``options``
    are set beside those of every client. Raises ``UsageError`` for an endpoint that is none and
    ``CommunicationError`` if the system does not give what a socket needs.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        kind: int,
        endpoint: str,
        config: ZmqRunnerConfig,
        *,
        open_channel: Callable[[zmq.Socket[bytes]], Channel],
        on_event: Callable[[MonitorEvent], None],
        options: Mapping[int, int],
    ) -> None:
        _check_descriptors(endpoint)
        try:
            with ExitStack() as opened:
                self.socket = context.socket(kind)
                opened.callback(self.socket.close, linger=0)
                set_client_options(self.socket, endpoint, config)
                for option, value in options.items():
                    self.socket.set(option, value)
                self.channel = open_channel(self.socket)
                opened.callback(self.channel.close)
                self._monitor = Monitor(self.socket, on_event)
                opened.callback(self._monitor.close)
                self.socket.connect(endpoint)
                opened.pop_all()
        except zmq.ZMQError as error:
            whose = CommunicationError if error.errno in _SHORTAGES else UsageError
            raise whose(f"cannot connect to {endpoint!r}: {error}") from None

    def close(self) -> None:
        """Close the socket; closing twice is fine."""
        self._monitor.close()
        self.channel.close()


def new_context(endpoint: str) -> zmq.Context[zmq.Socket[bytes]]:
    """Return a context for connecting to ``endpoint``. Raises ``CommunicationError``."""
    _check_descriptors(endpoint)
    return zmq.Context()


def _check_descriptors(endpoint: str) -> None:
    if not descriptors_left(_DESCRIPTORS_NEEDED):
        raise CommunicationError(f"cannot connect to {endpoint}: no file descriptors are left")


def descriptors_left(count: int = 1) -> bool:
    """Tell whether this process may open as many more file descriptors."""
    taken: list[int] = []
    try:
        for _ in range(count):
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE)
    finally:
        for descriptor in taken:
            os.close(descriptor)
    return True
