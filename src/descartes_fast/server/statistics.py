"""What a server has counted since it started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime

__all__ = ["Counters", "ServerStatistics"]


@dataclass(slots=True)
class Counters:
    """The running counts; every part of the server adds to the ones that are its own.

    ``spawns`` are agents that were started, ``spawn_failures`` spawn requests that were not
    granted for whatever reason; ``errors`` are all refusals. ``malformed`` are messages
    without a readable request id or in no known layout, dropped without an answer.
    """

    spawns: int = 0
    spawn_failures: int = 0
    commands: int = 0
    batches: int = 0
    queries: int = 0
    actions: int = 0
    lists: int = 0
    health_checks: int = 0
    errors: int = 0
    malformed: int = 0
    refused_clients: int = 0
    replayed: int = 0
    requests_received: int = 0
    request_bytes: int = 0
    replies_sent: int = 0
    reply_bytes: int = 0
    replies_dropped: int = 0
    status_published: int = 0
    logs_published: int = 0
    log_bytes_published: int = 0
    log_bytes_skipped: int = 0
    topics_over_limit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """A server's counts at one moment; the fields of :class:`Counters` and the ones below.

    ``clients`` is the number of connections to the command endpoint, ``agents_by_status``
    has the agents that are still listed.
    """

    started_at: datetime
    clients: int
    agents_by_status: Mapping[str, int]
    spawns: int
    spawn_failures: int
    commands: int
    batches: int
    queries: int
    actions: int
    lists: int
    health_checks: int
    errors: int
    malformed: int
    refused_clients: int
    replayed: int
    requests_received: int
    request_bytes: int
    replies_sent: int
    reply_bytes: int
    replies_dropped: int
    status_published: int
    logs_published: int
    log_bytes_published: int
    log_bytes_skipped: int
    topics_over_limit: int

    @classmethod
    def of(
        cls,
        counters: Counters,
        *,
        started_at: datetime,
        clients: int,
        agents_by_status: Mapping[str, int],
    ) -> ServerStatistics:
        """Return the counts of this moment; later counting does not change them."""
        counts = {entry.name: getattr(counters, entry.name) for entry in fields(counters)}
        return cls(
            started_at=started_at, clients=clients, agents_by_status=agents_by_status, **counts
        )
