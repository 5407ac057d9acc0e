"""The files that output goes to: made with their first byte, and few of them open at a time.

An agent that writes nothing costs no file, and one that is silent no descriptor.
"""

from __future__ import annotations

import errno
import os
import resource
from collections import OrderedDict

from .passing import close_all

__all__ = ["OpenFiles"]

_SHORTAGES = (errno.EMFILE, errno.ENFILE)
_SHARE = 16  # of the descriptors of this process; opening a file again costs 5 microseconds
_LEAST = 16


class OpenFiles:
    """Descriptors by path. The one that was used longest ago is closed for one too many."""

    def __init__(self, most: int | None = None) -> None:
        """Have at most ``most`` open: by default a share of what this process may have."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = max(limit // _SHARE, _LEAST) if most is None else most
        self._fds: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._fds)

    def __contains__(self, path: str) -> bool:
        return path in self._fds

    def descriptor(self, path: str) -> int:
        """Return a descriptor to write with, good until the next call. Raises ``OSError``."""
        fd = self._fds.get(path)
        if fd is not None:
            self._fds.move_to_end(path)
            return fd
        while len(self._fds) >= self._most:
            os.close(self._fds.popitem(last=False)[1])
        try:
            fd = _opened(path)
        except OSError as error:
            if error.errno not in _SHORTAGES or not self._fds:
                raise
            self.close_all()
            fd = _opened(path)
        self._fds[path] = fd
        return fd

    def close(self, path: str) -> None:
        """Close a file; one that is not open is fine."""
        fd = self._fds.pop(path, -1)
        if fd >= 0:
            os.close(fd)

    def close_all(self) -> None:
        """Close every file; what is needed is opened again."""
        close_all(self._fds.values())
        self._fds.clear()


def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
