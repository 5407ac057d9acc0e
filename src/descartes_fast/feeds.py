"""A client's two feeds: logs and status do not share a socket, nor does one wait for the other."""

from __future__ import annotations

from collections.abc import Callable

import zmq

from .config import ZmqRunnerConfig
from .errors import DescartesError
from .feed import Feed
from .profile import ServerProfile

__all__ = ["Feeds"]

# Log messages are up to 64 KiB, and a lost one is read again; updates are small.
_LOG_MESSAGES_WAITING = 1_000
_UPDATES_WAITING = 20_000


class Feeds:
    """The feeds of one connection, each made when it is first needed."""

    def __init__(self, config: ZmqRunnerConfig, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._config = config
        self._context = context
        self._logs: Feed | None = None
        self._status: Feed | None = None

    def logs(self, server: ServerProfile) -> Feed:
        """Return the feed of logs."""
        if self._logs is None:
            self._logs = self._made(server, _LOG_MESSAGES_WAITING)
        return self._logs

    def status(self, server: ServerProfile) -> Feed:
        """Return the feed of status updates."""
        if self._status is None:
            self._status = self._made(server, _UPDATES_WAITING)
        return self._status

    def found(self, server: ServerProfile) -> None:
        """The server is there (again); it may publish elsewhere now."""
        for feed in self._both():
            feed.found(server)

    def alive(self, server: ServerProfile) -> None:
        """The server answers commands: see that its publications arrive as well."""
        if server.echoes:
            for feed in self._both():
                feed.check()

    def failed(self, make_error: Callable[[], DescartesError]) -> None:
        """The server cannot be reached: tell everyone who listens."""
        for feed in self._both():
            feed.fail(make_error, final=not self._config.auto_reconnect)

    async def aclose(self) -> None:
        """Close both; twice is fine."""
        for feed in self._both():
            await feed.aclose()

    def _both(self) -> list[Feed]:
        return [feed for feed in (self._logs, self._status) if feed is not None]

    def _made(self, server: ServerProfile, high_water_mark: int) -> Feed:
        return Feed(self._config, self._context, server, high_water_mark=high_water_mark)
