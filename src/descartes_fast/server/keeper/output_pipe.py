"""One output stream of an agent: from its pipe into its file, and what the file may keep.

Offsets count from the stream's first byte and stay true for ever: trimming gives the
front of the file back to the file system as a hole. The first offset that is still
there stands in a file of its own beside the output (``stdout.start``), written before
the hole is made, so that a reader who looks there after reading never takes the zeros
of a hole for output. It exists only once something was trimmed, and the output's own file only
once there was a byte.
"""

from __future__ import annotations

import enum
import errno
import os
import struct
import sys
from typing import Any

from .output_files import OpenFiles
from .system import holds_bytes, is_hung_up, punch_hole

__all__ = ["START_SUFFIX", "Budget", "Outcome", "OutputPipe", "kept"]

START_SUFFIX = ".start"

_CHUNK = 64 * 1024  # a pipe's capacity: one turn of one stream, about 40 microseconds
_CANNOT_SPLICE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ESPIPE)
_MAX_TRIM = 1024 * 1024  # 0.2 milliseconds on ext4
_START = struct.Struct(">Q")
_chunk = memoryview(bytearray(_CHUNK))


class Outcome(enum.Enum):
    """What one turn of a stream came to."""

    MOVED = enum.auto()
    """Bytes were written to the file; there may be more."""
    EMPTY = enum.auto()
    """The pipe holds nothing, but somebody could still write to it."""
    END = enum.auto()
    """The pipe holds nothing and nobody has its other end."""
    FULL = enum.auto()
    """A limit is reached and nothing may be trimmed: the agent waits."""
    REFUSED = enum.auto()
    """The file system takes no more; nothing is lost, try again later."""


class Budget:
    """The bytes that all streams of the keeper together may keep."""

    def __init__(self) -> None:
        self.limit_bytes: int | None = None
        self.kept_bytes = 0
        self.streams: set[OutputPipe] = set()

    def room(self, wanted: int) -> int:
        """Return how many of ``wanted`` bytes may be written, trimming the largest streams."""
        if self.limit_bytes is None:
            return wanted
        while self.limit_bytes - self.kept_bytes < wanted:
            largest = max(self.streams, key=OutputPipe.trimmable, default=None)
            if largest is None or not largest.trim(_MAX_TRIM):
                break
        return max(0, min(wanted, self.limit_bytes - self.kept_bytes))


def kept(path: str) -> tuple[int, int]:
    """Return the first offset that a stream's file still has, and its end.

    A file that was never made is empty. Raises ``OSError`` if its directory is gone, or what there
    is cannot be looked at.
    """
    start = _trimmed_to(path)
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        os.stat(os.path.dirname(path))
        size = 0
    return start, max(size, start)


def _trimmed_to(path: str) -> int:
    try:
        fd = os.open(path + START_SUFFIX, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        data = os.read(fd, _START.size)
    finally:
        os.close(fd)
    # Shorter where the keeper was killed before it had written it, and trimmed nothing yet.
    return int(_START.unpack(data)[0]) if len(data) == _START.size else 0


class OutputPipe:
    """The read end of an agent's stdout or stderr, and the file it goes to.

    ``limit_bytes`` is what the file may keep; at the limit its oldest bytes are trimmed
    (``policy`` "trim") or the agent waits until they are released ("wait").
    """

    def __init__(
        self,
        fd: int,
        path: str,
        *,
        limit_bytes: int,
        policy: str,
        budget: Budget,
        files: OpenFiles,
    ) -> None:
        """Begin with no file; ``fd`` is -1 where the pipe's end was lost."""
        self.fd = fd
        self.path = path
        self.start = 0
        self.end = 0
        self.finishing = False
        """The agent's processes are gone: what is left is a pipe's worth, limits or not."""
        self._files = files
        self._closed = False
        self._limit = limit_bytes
        self._trims = policy == "trim"
        self._released = 0
        self._budget = budget
        self._splices = hasattr(os, "splice")
        self._refused = b""
        self._complained = False
        self._punches = True
        budget.streams.add(self)

    def go_on(self, start: int, end: int) -> None:
        """Go on where an earlier keeper stopped: after what :func:`kept` found."""
        self.start, self.end = start, end
        self._budget.kept_bytes += end - start

    def saved(self) -> dict[str, Any]:
        """Return everything, for :meth:`restored`."""
        return {
            "fd": self.fd,
            "path": self.path,
            "closed": self._closed,
            "limit_bytes": self._limit,
            "policy": "trim" if self._trims else "wait",
            "start": self.start,
            "end": self.end,
            "released": self._released,
            "refused": self._refused,
        }

    @classmethod
    def restored(cls, saved: dict[str, Any], budget: Budget, files: OpenFiles) -> OutputPipe:
        """Return the stream that :meth:`saved` has described."""
        pipe = cls(
            saved["fd"],
            saved["path"],
            limit_bytes=saved["limit_bytes"],
            policy=saved["policy"],
            budget=budget,
            files=files,
        )
        pipe.start, pipe.end = saved["start"], saved["end"]
        pipe._released = saved["released"]
        pipe._refused = saved["refused"]
        pipe._closed = saved["closed"]
        if pipe._closed:
            budget.streams.discard(pipe)
        else:
            budget.kept_bytes += pipe.end - pipe.start
        return pipe

    def move(self) -> Outcome:
        """Move at most one chunk from the pipe to the file."""
        if self._refused:
            return self._write(memoryview(self._refused))
        if self.path not in self._files and not holds_bytes(self.fd):
            # Once nobody has the other end nothing comes any more, but it may have just before.
            if self.finishing or not is_hung_up(self.fd):
                return Outcome.EMPTY
            if not holds_bytes(self.fd):
                return Outcome.END
        room = _CHUNK if self.finishing else self._room()
        if room == 0:
            return Outcome.FULL
        try:
            file_fd = self._files.descriptor(self.path)
        except OSError as error:
            return self._refuse(error)
        return self._splice(file_fd, room) if self._splices else self._copy(room)

    def release(self, offset: int) -> None:
        """Somebody has read what comes before ``offset``: a stream that waits may trim it."""
        self._released = max(self._released, min(offset, self.end))

    def trimmable(self) -> int:
        """Return how many bytes may be trimmed: all, or what was released."""
        if not self._punches:
            return 0
        return (self.end if self._trims else self._released) - self.start

    def trim(self, count: int) -> bool:
        """Give at most ``count`` of the oldest bytes back. False if that is not possible."""
        new_start = self.start + min(count, self.trimmable())
        if new_start == self.start:
            return False
        try:
            file_fd = self._files.descriptor(self.path)
            self._write_start(new_start)
        except OSError:
            return False
        try:
            punch_hole(file_fd, self.start, new_start)
        except OSError as error:
            self._punches = False
            self._write_start(self.start)
            self._complain(f"cannot be trimmed, so the agent waits at its limit: {error.strerror}")
            return False
        self._budget.kept_bytes -= new_start - self.start
        self.start = new_start
        return True

    def close(self) -> None:
        """Close both ends; the file counts no longer. Twice is fine."""
        if not self._closed:
            self._closed = True
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1
            self._files.close(self.path)
            self._budget.kept_bytes -= self.end - self.start
            self._budget.streams.discard(self)

    def _room(self) -> int:
        """Return how many bytes the limits allow now, at most one chunk."""
        wanted = min(_CHUNK, self._limit)
        if self._limit - (self.end - self.start) < wanted:
            slack = min(self._limit // 2, max(self._limit // 8, _CHUNK), _MAX_TRIM)
            self.trim(max(slack, 1))
        room = min(wanted, self._limit - (self.end - self.start))
        return self._budget.room(room) if room > 0 else 0

    def _splice(self, file_fd: int, room: int) -> Outcome:
        """Let the kernel move bytes: what is not in the file yet is still in the pipe."""
        try:
            count = os.splice(
                self.fd, file_fd, room, offset_dst=self.end, flags=os.SPLICE_F_NONBLOCK
            )
        except BlockingIOError:
            return Outcome.EMPTY
        except OSError as error:
            if error.errno not in _CANNOT_SPLICE:
                return self._refuse(error)
            self._splices = False
            return self._copy(room)
        if count == 0:
            return Outcome.END
        self._grow(count)
        return Outcome.MOVED

    def _copy(self, room: int) -> Outcome:
        """Read and write where there is no splice; what the file refuses is kept here."""
        try:
            count = os.readv(self.fd, (_chunk[:room],))
        except BlockingIOError:
            return Outcome.EMPTY
        return self._write(_chunk[:count]) if count else Outcome.END

    def _write(self, data: memoryview) -> Outcome:
        try:
            count = os.pwrite(self._files.descriptor(self.path), data, self.end)
        except OSError as error:
            self._refused = bytes(data)
            return self._refuse(error)
        self._grow(count)
        self._refused = bytes(data[count:]) if count < len(data) else b""
        return Outcome.MOVED

    def _grow(self, count: int) -> None:
        self.end += count
        self._budget.kept_bytes += count

    def _refuse(self, error: OSError) -> Outcome:
        self._complain(f"cannot be written, so the agent waits: {error.strerror}")
        return Outcome.REFUSED

    def _write_start(self, start: int) -> None:
        fd = os.open(self.path + START_SUFFIX, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, _START.pack(start), 0)
        finally:
            os.close(fd)

    def _complain(self, words: str) -> None:
        if not self._complained:
            self._complained = True
            print(f"{self.path} {words}", file=sys.stderr, flush=True)
