"""The faults of a chaos run, drawn by chance from a seed: the same seed, the same schedule."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

__all__ = ["KILLS", "Fault", "schedule"]

KILLS = ("server", "keeper", "both")

_WEIGHTS = {
    "server": 10,  # SIGKILL
    "keeper": 4,
    "both": 1,
    "client": 6,
    "cut": 6,  # every connection is reset
    "delay": 3,  # messages are held back
    "freeze": 2,  # connections stay open and nothing passes
    "lose": 4,  # one reply in five
    "full disk": 2,
}
_LASTING = {"delay": (0.3, 1.5), "freeze": (0.2, 1.5), "lose": (0.5, 3.0), "full disk": (0.3, 1.5)}
_HASTY_SHARE = 0.15
_MOST_KEEPERS, _WITHIN_SECS = 3, 90.0
"""A server that loses its keeper five times within a minute gives up, on purpose."""
_QUIET_SECS = 2.0
"""At the beginning and at the end."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when, what, for how long (if it lasts), and to whom.

    A kill of server or keeper waits until both are back from the last one, unless it is
    ``hasty``; what follows is later by that.
    """

    at_secs: float
    kind: str
    lasts_secs: float = 0.0
    client: int = 0
    hasty: bool = False

    def __str__(self) -> str:
        words = f"{self.at_secs:7.2f} s  {self.kind}"
        if self.kind == "client":
            words += f" {self.client}"
        if self.lasts_secs:
            words += f" for {self.lasts_secs:.2f} s"
        if self.hasty and self.kind in KILLS:
            words += ", hastily"
        return words


def schedule(seed: int, secs: float, clients: int, *, full_disk: bool = True) -> list[Fault]:
    """Return the faults of a run of that length, in their order.

    What needs a disk of its own is left out where there is none (``full_disk``), without moving
    the others.
    """
    dice = Random(f"{seed}/faults")
    kinds, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    faults: list[Fault] = []
    at = _QUIET_SECS
    keepers: list[float] = []  # when the running server lost its keeper
    while True:
        at += dice.choice((0.05, dice.uniform(0.2, 1.0), dice.uniform(0.5, 3.0)))
        if at > secs - _QUIET_SECS:
            return faults
        (kind,) = dice.choices(kinds, weights)
        if kind == "keeper" and len(keepers) >= _MOST_KEEPERS and at - keepers[0] < _WITHIN_SECS:
            kind = "server"
        keepers = [*keepers[1 - _MOST_KEEPERS :], at] if kind == "keeper" else keepers
        keepers = [] if kind in ("server", "both") else keepers
        lasts = round(dice.uniform(*_LASTING[kind]), 2) if kind in _LASTING else 0.0
        client = dice.randrange(clients)
        hasty = dice.random() < _HASTY_SHARE
        if kind != "full disk" or full_disk:
            faults.append(Fault(round(at, 2), kind, lasts, client, hasty))
