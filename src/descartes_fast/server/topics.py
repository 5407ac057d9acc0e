"""Which topics somebody subscribes to, so that nothing is made for nobody."""

from __future__ import annotations

__all__ = ["Topics"]

_LONGEST_TOPIC_BYTES = 43  # "status/" and an id; a longer prefix matches nothing published


class Topics:
    """The subscribed prefixes, at most ``limit`` of them.

    Beyond the limit every topic counts as subscribed (libzmq drops what nobody wants), so that
    a peer with too many subscriptions costs work but takes nothing from others.
    """

    def __init__(self, limit: int = 65_536) -> None:
        self._limit = limit
        self._prefixes: set[bytes] = set()
        self._over_limit = 0
        self.version = 0
        """Rises when the answer of :meth:`wanted` may have changed."""

    def add(self, prefix: bytes) -> bool:
        """Note a subscription; return whether there was room for it."""
        if len(prefix) > _LONGEST_TOPIC_BYTES:
            return True
        self.version += 1
        if len(self._prefixes) >= self._limit and prefix not in self._prefixes:
            self._over_limit += 1
            return False
        self._prefixes.add(prefix)
        return True

    def remove(self, prefix: bytes) -> None:
        """Note the end of the last subscription to a prefix."""
        if len(prefix) > _LONGEST_TOPIC_BYTES:
            return
        self.version += 1
        if prefix in self._prefixes:
            self._prefixes.discard(prefix)
        elif self._over_limit:
            self._over_limit -= 1

    def wanted(self, topic: bytes) -> bool:
        """Tell whether anybody subscribes to the topic."""
        if self._over_limit:
            return True
        prefixes = self._prefixes
        return bool(prefixes) and any(
            topic[:length] in prefixes for length in range(len(topic) + 1)
        )

    def __len__(self) -> int:
        return len(self._prefixes)
