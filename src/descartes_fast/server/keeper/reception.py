"""Who comes to the keeper's socket, and that there is one to come to."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable

from .loop import READ, Loop
from .peers import may_connect
from .place import Place
from .spares import Spares

__all__ = ["Reception"]

_BATCH = 32  # one costs some 100 microseconds; who connects in a loop keeps out nobody else
_SPARES = 4  # the connection's own, two to see whose it is, and one more
_PAUSE_SECS = 0.1
_LOOK_SECS = 1.0
_MAX_REFUSALS_LOGGED = 20


class Reception:
    """Accepts connections, refuses agents, and keeps the socket's file where it belongs."""

    def __init__(
        self,
        loop: Loop,
        place: Place,
        is_agents: Callable[[int], bool],
        welcome: Callable[[socket.socket], None],
        dismiss: Callable[[], bool],
    ) -> None:
        """Hand each connection that may be to ``welcome``; ``is_agents`` knows who may not.

        ``dismiss`` ends a connection that has not said who it is, and tells whether it did: nobody
        keeps the server out by holding the last descriptors.
        """
        self._loop = loop
        self._place = place
        self._is_agents = is_agents
        self._welcome = welcome
        self._dismiss = dismiss
        self._spares = Spares(_SPARES)
        self._refused = 0
        self._looks = False

    def open(self) -> None:
        """Begin."""
        self._loop.watch(self._place.listener.fileno(), READ, self._accept)

    def keep_open(self, is_wanted: Callable[[], bool]) -> None:
        """Look now and then, while ``is_wanted``, whether the socket can still be found."""
        self._spares.refill()
        if not self._looks:
            self._looks = True
            self._look(is_wanted)

    def close(self) -> None:
        """Close what is held for the next connection."""
        self._spares.close()

    def _look(self, is_wanted: Callable[[], bool]) -> None:
        self._looks = is_wanted()
        if not self._looks:
            return
        if not self._place.can_be_found():
            self._accept()
            self._loop.unwatch(self._place.listener.fileno())
            with contextlib.suppress(OSError):
                self._place.listen_again()
                print("the socket was gone and is there again", file=sys.stderr, flush=True)
            self.open()
        self._loop.call_later(_LOOK_SECS, lambda: self._look(is_wanted))

    def _accept(self) -> None:
        with self._spares.given_way():
            for _ in range(_BATCH):
                try:
                    peer, _ = self._place.listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    return
                except OSError:
                    if self._dismiss():
                        continue
                    # Nothing is free, and who waits would make the loop spin.
                    self._loop.unwatch(self._place.listener.fileno())
                    self._loop.call_later(_PAUSE_SECS, self.open)
                    return
                if self._may_connect(peer):
                    self._welcome(peer)
                else:
                    self._refuse(peer)

    def _may_connect(self, peer: socket.socket) -> bool:
        while True:
            try:
                return may_connect(peer, self._is_agents)
            except OSError:  # nothing is left to see with whose it is
                if not self._dismiss():
                    return False

    def _refuse(self, peer: socket.socket) -> None:
        peer.close()
        self._refused += 1
        if self._refused <= _MAX_REFUSALS_LOGGED:
            print("a connection was refused", file=sys.stderr, flush=True)
