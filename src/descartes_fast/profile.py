"""What a server says about itself in the answer to a health check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ._core import ZMQ_PROTOCOL_VERSION, HealthCheckResponse
from .errors import CommunicationError, DescartesError, ProtocolError, Unsupported

__all__ = ["RequestMemory", "ServerProfile", "publishing_endpoint", "refusal"]

RequestMemory = tuple[str | None, str | None]
"""What remembers requests: a server's ``server_id`` and its ``journal_id``."""

_WILDCARD_HOSTS = frozenset({"0.0.0.0", "*", "::", "[::]"})


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """A server's identity and abilities, read from its health check.

    A server without ``features`` (Rust's) has none of ours: its mutations are not safe to
    repeat (``idempotent``), its log sequence counts messages (no ``offsets``), and it
    publishes no status (no ``snapshot``).
    """

    server_id: str | None
    journal_id: str | None
    features: frozenset[str]
    pub_endpoint: str | None

    @classmethod
    def from_health(
        cls, answer: HealthCheckResponse, *, endpoint: str, pub_endpoint: str | None
    ) -> Self:
        """Return the profile; ``pub_endpoint`` overrides what the server announces."""
        metadata = answer.metadata or {}
        announced = metadata.get("pub_endpoint")
        if pub_endpoint is None and announced:
            pub_endpoint = publishing_endpoint(announced, endpoint)
        words = (word.strip() for word in metadata.get("features", "").split(","))
        return cls(
            server_id=metadata.get("server_id"),
            journal_id=metadata.get("journal_id"),
            features=frozenset(word for word in words if word),
            pub_endpoint=pub_endpoint,
        )

    @property
    def idempotent(self) -> bool:
        """Whether a mutation may be sent again under the same request id."""
        return "idempotent" in self.features

    @property
    def request_memory(self) -> RequestMemory:
        """Which memory of requests it has: a server that lost its own does not know a repeat."""
        return self.server_id, self.journal_id

    @property
    def offsets(self) -> bool:
        """Whether a log message's sequence is the byte offset of its data."""
        return "offsets" in self.features

    @property
    def snapshot(self) -> bool:
        """Whether the server publishes status."""
        return "snapshot" in self.features

    @property
    def echoes(self) -> bool:
        """Whether a subscription to a sync topic is answered."""
        return self.offsets or self.snapshot

    def subscribe_at(self) -> str:
        """Return where the server publishes. Raises ``Unsupported`` if it does not say."""
        if self.pub_endpoint is None:
            raise Unsupported("the server does not say where it publishes; set pub_endpoint")
        return self.pub_endpoint


def publishing_endpoint(announced: str, command_endpoint: str) -> str:
    """Return where to subscribe: a wildcard host stands for the host the commands go to."""
    scheme, _, address = announced.partition("://")
    host, _, port = address.rpartition(":")
    if scheme != "tcp" or host not in _WILDCARD_HOSTS:
        return announced
    command_scheme, _, command_address = command_endpoint.partition("://")
    command_host = command_address.rpartition(":")[0] if command_scheme == "tcp" else "127.0.0.1"
    return f"tcp://{command_host}:{port}"


def refusal(
    answer: HealthCheckResponse, *, endpoint: str, expected_server_id: str | None
) -> DescartesError | None:
    """Return why this server must not be used, or ``None`` if it may."""
    if answer.protocol_version != ZMQ_PROTOCOL_VERSION:
        return ProtocolError(
            f"the server at {endpoint} speaks protocol version {answer.protocol_version!r}; "
            f"this client knows only {ZMQ_PROTOCOL_VERSION!r}"
        )
    if expected_server_id is not None:
        actual = (answer.metadata or {}).get("server_id")
        if actual != expected_server_id:
            return CommunicationError(
                f"expected server {expected_server_id!r} at {endpoint}, but {actual!r} answered"
                if actual is not None
                else f"expected server {expected_server_id!r} at {endpoint}, "
                "but the server there does not say its server_id"
            )
    return None
