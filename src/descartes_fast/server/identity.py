"""What a server tells about itself."""

from __future__ import annotations

import importlib.metadata
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

__all__ = ["ServerIdentity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """Its name, its endpoints and when it started."""

    server_id: str
    endpoint: str
    pub_endpoint: str
    max_agents: int
    publishes_status: bool
    journal_id: str
    """Which memory of requests it has: with another one, what was repeated would be new."""
    remembers: bool = True
    """Whether it has such a memory at all: ``replay_bytes = 0`` is none."""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _started: float = field(default_factory=time.monotonic)

    @property
    def uptime_secs(self) -> int:
        return int(time.monotonic() - self._started)

    def metadata(self) -> dict[str, str]:
        """Return the metadata of a health check."""
        return {
            "server_id": self.server_id,
            "journal_id": self.journal_id,
            "endpoint": self.endpoint,
            "pub_endpoint": self.pub_endpoint,
            "max_agents": str(self.max_agents),
            "version": _VERSION,
            "features": ",".join(self._features()),
        }

    def _features(self) -> list[str]:
        features = {
            "idempotent": self.remembers,
            "offsets": True,
            "snapshot": self.publishes_status,
        }
        return [name for name, has_it in features.items() if has_it]


def _version() -> str:
    try:
        return importlib.metadata.version("descartes-fast")
    except importlib.metadata.PackageNotFoundError:  # imported from a tree, not installed
        return "unknown"


_VERSION = _version()
