"""The server: one file for each of its jobs; :mod:`.assembly` joins them."""

from __future__ import annotations

from .server import ZmqAgentServer
from .statistics import ServerStatistics

__all__ = ["ServerStatistics", "ZmqAgentServer"]
