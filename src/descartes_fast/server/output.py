"""An agent's output: files that the keeper writes, read from any offset, and their lines.

Everything here blocks on the disk. Reads of a page or two may be done on the event loop,
queries belong into a thread.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AgentTimeout, InvalidContext, OutputGone, ServerBusy, Unsupported
from .keeper.output_pipe import START_SUFFIX

__all__ = ["MAX_LINE_BYTES", "OutputFile", "QueryResult", "last_lines", "query"]

MAX_LINE_BYTES = 1024 * 1024
"""A longer line is cut here, and says so at its end."""

MAX_RESULT_BYTES = 8 * 1024 * 1024
"""What a query returns at most: it has to fit into a message."""

_BLOCK_BYTES = 1024 * 1024
_LINE_OVERHEAD = 5  # of the longest string header on the wire
_PATTERN_MEMORY = 1024 * 1024  # of a compiled pattern: bounds the time for one byte of input
_CUT_MARK = b" [line cut: %d bytes more]"
_QUERY_SECS = 10.0
_START = struct.Struct(">Q")
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class OutputFile:
    """One stream of an agent.

    ``end`` is how many bytes there have been, ``start`` the first that was not trimmed;
    whoever hears from the keeper keeps both up to date.
    """

    __slots__ = ("end", "path", "start")

    def __init__(self, path: str | os.PathLike[str], start: int = 0, end: int = 0) -> None:
        self.path = Path(path)
        self.start = start
        self.end = end

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Return at most ``max_bytes`` from ``offset``; ``b""`` at the end.

        Raises ``OutputGone`` if the byte at ``offset`` was trimmed; its ``end`` is the first
        offset that is still there. Raises ``ServerBusy`` where descriptors or memory run short,
        and ``OSError`` for a disk that fails.
        """
        if offset >= self.end:
            return b""
        try:
            return self._read(offset, max_bytes)
        except OSError as error:
            if error.errno not in _SHORTAGES:
                raise
            raise ServerBusy(f"the output cannot be read just now: {error.strerror}") from None

    def _read(self, offset: int, max_bytes: int) -> bytes:
        count = min(max_bytes, self.end - offset)
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self._gone(offset, self.end) from None
        try:
            data = _pread(fd, count, offset)
        finally:
            os.close(fd)
        # Looked at after reading: the keeper writes the new start before it makes the hole.
        start = self._trimmed_to()
        if offset < start:
            raise self._gone(offset, start)
        return data

    def _trimmed_to(self) -> int:
        try:
            with open(f"{self.path}{START_SUFFIX}", "rb") as file:
                written = file.read(_START.size)
        except FileNotFoundError:
            return self.start
        return max(self.start, _START.unpack(written)[0]) if written else self.start

    def _gone(self, offset: int, start: int) -> OutputGone:
        return OutputGone(
            f"the output before byte {start} was trimmed away", start=offset, end=start
        )


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Lines of a query, how many there are in all, and whether more follow these."""

    lines: list[str]
    total: int
    has_more: bool


def query(
    outputs: Sequence[OutputFile],
    *,
    pattern: str | None = None,
    limit: int | None = None,
    offset: int = 0,
    max_bytes: int = MAX_RESULT_BYTES,
    timeout_secs: float = _QUERY_SECS,
) -> QueryResult:
    """Return the lines of ``outputs``, one after another, that match ``pattern`` anywhere.

    ``offset`` matching lines are left out, and ``limit`` or ``max_bytes`` end the result;
    ``total`` counts every matching line. Lines are UTF-8 with replacement characters for
    what is not, without their ``\\n`` or ``\\r\\n``. Patterns are those of RE2, which takes
    linear time. Memory is bounded by ``max_bytes`` and a few blocks of 1 MiB. Raises
    ``InvalidContext`` for a pattern that is none, ``Unsupported`` without the package that
    matches them, ``AgentTimeout`` after ``timeout_secs``.
    """
    matches = _matcher(pattern) if pattern is not None else None
    give_up_at = time.monotonic() + timeout_secs
    chosen: list[str] = []
    room = max_bytes
    total = 0
    last = None if limit is None else offset + limit
    is_full = False
    for output in outputs:
        for lines in _line_blocks(output):
            if time.monotonic() > give_up_at:
                raise AgentTimeout(f"the query took more than {timeout_secs:g} s")
            if matches is not None:
                lines = [line for line in lines if matches(line)]
            begin = max(0, offset - total)
            end = len(lines) if last is None else max(0, last - total)
            total += len(lines)
            for line in lines[begin:end]:
                room -= len(line) + _LINE_OVERHEAD
                is_full = is_full or (room < 0 and bool(chosen))
                if is_full:
                    break
                chosen.append(line.decode())
    return QueryResult(chosen, total, total > offset + len(chosen))


def last_lines(
    output: OutputFile, max_lines: int, *, max_bytes: int = MAX_RESULT_BYTES
) -> tuple[list[str], int]:
    """Return the last ``max_lines`` lines of a stream, and how many lines it has."""
    total = sum(len(lines) for lines in _line_blocks(output))
    result = query([output], offset=max(0, total - max_lines), max_bytes=max_bytes)
    return result.lines[-max_lines:] if max_lines > 0 else [], result.total


def _line_blocks(output: OutputFile) -> Iterator[list[bytes]]:
    """Yield a stream's lines, many at a time, as valid UTF-8.

    A stream that was trimmed begins with its first whole line.
    """
    position, end = output.start, output.end
    is_partial = position > 0
    line = _LongLine()
    while position < end:
        try:
            data = output.read(position, min(_BLOCK_BYTES, end - position))
        except OutputGone as gone:
            position = max(gone.end, position + 1)
            is_partial = True
            line = _LongLine()
            continue
        if not data:
            break
        position += len(data)
        if is_partial:
            _, newline, data = data.partition(b"\n")
            is_partial = not newline
        if data:
            head, newline, rest = data.partition(b"\n")
            line.add(head)
            if newline:
                lines, line = [line.take()], _LongLine()
                *whole, tail = rest.split(b"\n")
                lines += whole
                line.add(tail)
                yield _clean(lines)
    if not line.is_empty:
        yield _clean([line.take()])


class _LongLine:
    """A line that spans blocks; what is above the limit is counted instead of kept."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._dropped = 0

    @property
    def is_empty(self) -> bool:
        return not self._kept

    def add(self, piece: bytes) -> None:
        kept = piece[: MAX_LINE_BYTES - len(self._kept)]
        self._kept += kept
        self._dropped += len(piece) - len(kept)

    def take(self) -> bytes:
        return bytes(self._kept) + (_CUT_MARK % self._dropped if self._dropped else b"")


def _clean(lines: list[bytes]) -> list[bytes]:
    """Return lines without carriage returns at their ends, as valid UTF-8."""
    text = b"\n".join(lines)
    if not text.isascii():
        text = text.decode("utf-8", "replace").encode()
        lines = text.split(b"\n")
    return [line.removesuffix(b"\r") for line in lines] if b"\r" in text else lines


def _matcher(pattern: str) -> Callable[[bytes], Any]:
    try:
        import re2  # type: ignore[import-untyped]
    except ImportError:
        raise Unsupported(
            "filtering output needs google-re2 on the server: pip install 'descartes-fast[query]'"
        ) from None
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _PATTERN_MEMORY
    try:
        search: Callable[[bytes], Any] = re2.compile(pattern.encode(), options).search
    except (re2.error, UnicodeEncodeError) as error:
        raise InvalidContext(f"the filter is not a regular expression of RE2: {error}") from None
    return search


def _pread(fd: int, count: int, offset: int) -> bytes:
    data = os.pread(fd, count, offset)
    while 0 < len(data) < count:
        more = os.pread(fd, count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
