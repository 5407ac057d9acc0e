"""Who is asking, and may they.

Without keys everybody who can reach the server is one principal and may do everything;
reaching it is what :mod:`.endpoints` limits to this machine. Rights never hang on a
routing id, which a client chooses for itself.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LOCAL", "Principal"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who sends requests; replies are remembered for each separately."""

    name: str


LOCAL = Principal("local")
"""Whoever reaches a server that has no keys."""
