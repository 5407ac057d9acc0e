"""An agent's output: files that the keeper writes, read from any offset, and their lines.

Everything here blocks on the disk. Reads of a page or two may be done on the event loop,
queries belong into a thread.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import AgentTimeout, OutputGone, ServerBusy
from .keeper.output_pipe import START_SUFFIX
from .keeper.system import SHORTAGES
from .line_filter import LineFilter

__all__ = ["MAX_LINE_BYTES", "OutputFile", "QueryResult", "last_lines", "query"]

MAX_LINE_BYTES = 1024 * 1024
"""A longer line is cut here, and says so at its end."""

MAX_RESULT_BYTES = 8 * 1024 * 1024
"""What a query returns at most: it has to fit into a message."""

_BLOCK_BYTES = 64 * 1024  # what is done with one keeps the event loop waiting: a millisecond
_LINE_OVERHEAD = 5  # of the longest string header on the wire
_CUT_MARK = b" [line cut: %d bytes more]"
_QUERY_SECS = 10.0
_START = struct.Struct(">Q")


class OutputFile:
    """One stream of an agent.

    ``end`` is how many bytes there have been, ``start`` the first that was not trimmed;
    whoever hears from the keeper keeps both up to date.
    """

    __slots__ = ("end", "path", "start")

    def __init__(self, path: str | os.PathLike[str], start: int = 0, end: int = 0) -> None:
        self.path = os.fspath(path)
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
            if error.errno not in SHORTAGES:
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
    is_cancelled: Callable[[], bool] = lambda: False,
) -> QueryResult:
    """Return the lines of ``outputs``, one after another, that match ``pattern`` anywhere.

    ``offset`` matching lines are left out, and ``limit`` or ``max_bytes`` end the result;
    ``total`` counts every matching line that is still there. Lines are UTF-8 with replacement
    characters for what is not, without their ``\\n`` or ``\\r\\n``. Patterns are those of RE2,
    which takes linear time; of a line they see the first 64 KiB. Memory is bounded by
    ``max_bytes`` and the longest line. Raises ``InvalidContext`` for a pattern that is none,
    ``Unsupported`` without the package that matches them, and ``AgentTimeout`` within two
    seconds after ``timeout_secs``, or after ``is_cancelled`` says so.
    """
    line_filter = LineFilter(pattern) if pattern is not None else None
    give_up_at = time.monotonic() + timeout_secs

    def check() -> None:
        if time.monotonic() > give_up_at or is_cancelled():
            raise AgentTimeout(f"the query took more than {timeout_secs:g} s")

    window = _Window(offset, limit, max_bytes)
    for output in outputs:
        for block in _blocks(output):
            check()
            if line_filter is not None:
                window.add(line_filter.matching(block, check))
            elif window.wants(count := _line_count(block)):
                window.add(block.split(b"\n"))
            else:
                window.total += count
    chosen = window.chosen
    return QueryResult(chosen, window.total, window.total > offset + len(chosen))


class _Window:
    """The part of a query's lines that is wanted, and how many there are in all."""

    def __init__(self, offset: int, limit: int | None, max_bytes: int) -> None:
        self.chosen: list[str] = []
        self.total = 0
        self._offset = offset
        self._end = None if limit is None else offset + limit
        self._room = max_bytes
        self._is_full = False

    def wants(self, count: int) -> bool:
        """Tell whether any of the next ``count`` lines is in the window."""
        is_before_its_end = self._end is None or self.total < self._end
        return is_before_its_end and not self._is_full and self.total + count > self._offset

    def add(self, lines: list[bytes]) -> None:
        begin = max(0, self._offset - self.total)
        end = len(lines) if self._end is None else max(0, self._end - self.total)
        self.total += len(lines)
        for line in lines[begin:end]:
            self._room -= len(line) + _LINE_OVERHEAD
            self._is_full = self._is_full or (self._room < 0 and bool(self.chosen))
            if self._is_full:
                break
            self.chosen.append(line.decode())


def last_lines(
    output: OutputFile,
    max_lines: int,
    *,
    max_bytes: int = MAX_RESULT_BYTES,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> tuple[list[str], int]:
    """Return the last ``max_lines`` lines of a stream, and how many lines it has."""
    total = query([output], limit=0, is_cancelled=is_cancelled).total
    first = max(0, total - max_lines)
    result = query([output], offset=first, max_bytes=max_bytes, is_cancelled=is_cancelled)
    return result.lines[-max_lines:] if max_lines > 0 else [], result.total


def _line_count(block: bytes) -> int:
    return block.count(b"\n") + 1


def _blocks(output: OutputFile) -> Iterator[bytes]:
    """Yield a stream's lines, many joined by newlines or a long one alone, as valid UTF-8.

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
        head, newline, rest = data.partition(b"\n")
        line.add(head)
        if newline:
            whole, has_more, tail = rest.rpartition(b"\n")
            first, line = line.take(), _LongLine()
            line.add(tail)
            if has_more and len(first) + 1 + len(whole) <= _BLOCK_BYTES:
                yield _clean(first + b"\n" + whole)
            else:
                yield _clean(first)
                if has_more:
                    yield _clean(whole)
    if not line.is_empty:
        yield _clean(line.take())


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


def _clean(block: bytes) -> bytes:
    """Return lines without carriage returns at their ends, as valid UTF-8."""
    if not block.isascii():
        block = block.decode("utf-8", "replace").encode()
    return block.replace(b"\r\n", b"\n").removesuffix(b"\r") if b"\r" in block else block


def _pread(fd: int, count: int, offset: int) -> bytes:
    data = os.pread(fd, count, offset)
    while 0 < len(data) < count:
        more = os.pread(fd, count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
