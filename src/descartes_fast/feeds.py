"""A client's two feeds: logs and status do not share a socket, nor does one wait for the other."""

from __future__ import annotations

from collections.abc import Callable

import zmq

from .config import ZmqRunnerConfig
from .errors import DescartesError, Unsupported
from .feed import Feed
from .profile import ServerProfile

__all__ = ["Feeds"]

# Log messages are up to 64 KiB, and a lost one is read again; updates are small.
_LOG_MESSAGES_WAITING = 1_000
_UPDATES_WAITING = 20_000


class Feeds:
    """The feeds of one connection, each opened when it is first needed."""

    def __init__(self, config: ZmqRunnerConfig, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._config = config
        self._context = context
        self._logs: Feed | None = None
        self._status: Feed | None = None

    def logs(self, profile: ServerProfile) -> Feed:
        """Return the feed of logs. Raises ``Unsupported`` if it is not known where that is."""
        if self._logs is None:
            self._logs = self._open(profile, _LOG_MESSAGES_WAITING)
        return self._logs

    def status(self, profile: ServerProfile) -> Feed:
        """Return the feed of status updates; raises as ``logs``."""
        if self._status is None:
            self._status = self._open(profile, _UPDATES_WAITING)
        return self._status

    def found(self, profile: ServerProfile) -> None:
        """The server is there (again); it may publish elsewhere now."""
        for feed in self._opened():
            if profile.pub_endpoint is not None and profile.pub_endpoint != feed.endpoint:
                feed.move(profile.pub_endpoint)

    def failed(self, make_error: Callable[[], DescartesError]) -> None:
        """The server cannot be reached: tell everyone who listens."""
        for feed in self._opened():
            feed.fail(make_error, final=not self._config.auto_reconnect)

    def close(self) -> None:
        """Close both; twice is fine."""
        for feed in self._opened():
            feed.close()

    def _opened(self) -> list[Feed]:
        return [feed for feed in (self._logs, self._status) if feed is not None]

    def _open(self, profile: ServerProfile, high_water_mark: int) -> Feed:
        endpoint = profile.pub_endpoint
        if endpoint is None:
            raise Unsupported("the server does not say where it publishes; set pub_endpoint")
        return Feed(self._config, self._context, endpoint, high_water_mark=high_water_mark)
