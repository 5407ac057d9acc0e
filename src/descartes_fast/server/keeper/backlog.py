"""What an agent's stdin did not take yet: in a file without a name, which outlives its keeper.

The kernel moves bytes from the file into the pipe and the file's own position with them
(splice without an offset), in one step and for every duplicate of the descriptor. So
whoever holds a duplicate when the keeper is killed goes on at the right byte.

Spliced pages are the file's own until the agent has read them. They are never written
again, and given back only as a whole: a page that is taken out of the file stays what it
is in the pipe, but a page of which a part is cut off is zeroed there.
"""

from __future__ import annotations

import os

from .system import punch_hole

__all__ = ["Backlog", "FileBacklog", "HeapBacklog", "new_backlog"]

_MOVE_BYTES = 1024 * 1024  # more than a pipe takes
_LARGEST_PAGE = 2 * 1024 * 1024  # the kernel may keep such a file in huge pages


class FileBacklog:
    """Bytes in a memfd, which is emptied and used again."""

    def __init__(self, fd: int, position: int, end: int) -> None:
        self.fd = fd
        self._position = position
        self._end = end
        self._given_back = 0

    @classmethod
    def found(cls, fd: int) -> FileBacklog:
        """Go on with a file of an earlier keeper, which this object closes. Raises ``OSError``."""
        position = os.lseek(fd, 0, os.SEEK_CUR)
        return cls(fd, position, max(position, os.fstat(fd).st_size))

    def __len__(self) -> int:
        return self._end - self._position

    def append(self, data: memoryview) -> None:
        """Keep ``data`` behind what is there. Raises ``OSError`` where there is no memory."""
        end = self._end
        try:
            while data:
                count = os.pwrite(self.fd, data, end)
                end += count
                data = data[count:]
        except OSError:
            os.ftruncate(self.fd, self._end)
            raise
        self._end = end

    def move(self, pipe_fd: int) -> None:
        """Move what the pipe takes now. Raises ``OSError``: ``BlockingIOError``, ``EPIPE``."""
        count = os.splice(self.fd, pipe_fd, min(_MOVE_BYTES, len(self)), flags=os.SPLICE_F_NONBLOCK)
        self._position += count
        if not len(self):
            # In this order: killed in between, it is at its end still.
            os.ftruncate(self.fd, 0)
            os.lseek(self.fd, 0, os.SEEK_SET)
            self._position = self._end = self._given_back = 0
        elif self._position - self._given_back >= _LARGEST_PAGE:
            until = self._position - self._position % _LARGEST_PAGE
            punch_hole(self.fd, self._given_back, until)
            self._given_back = until

    def close(self) -> None:
        """Give it up. Twice is fine."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._position = self._end = 0


class HeapBacklog:
    """Bytes in this process, where there is no memfd or splice: they end with the keeper."""

    fd = -1

    def __init__(self) -> None:
        self.data = bytearray()

    def __len__(self) -> int:
        return len(self.data)

    def append(self, data: memoryview) -> None:
        """Keep ``data`` behind what is there."""
        self.data += data

    def move(self, pipe_fd: int) -> None:
        """Move what the pipe takes now. Raises ``OSError``: ``BlockingIOError``, ``EPIPE``."""
        with memoryview(self.data) as view, view[:_MOVE_BYTES] as piece:
            count = os.write(pipe_fd, piece)
        del self.data[:count]

    def close(self) -> None:
        """Give it up. Twice is fine."""
        self.data.clear()


Backlog = FileBacklog | HeapBacklog


def new_backlog() -> Backlog:
    """Return an empty one: in a file if that can be."""
    if hasattr(os, "memfd_create") and hasattr(os, "splice"):
        try:
            return FileBacklog(os.memfd_create("stdin"), 0, 0)
        except OSError:
            pass  # forbidden, or no descriptor is left
    return HeapBacklog()
