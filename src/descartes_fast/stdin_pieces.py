"""What to send for bytes to an agent's stdin: the wire has text, and arrays of numbers."""

from __future__ import annotations

from typing import Any

from ._core import MAX_MESSAGE_SIZE
from .errors import MessageTooLarge, UsageError

__all__ = ["stdin_pieces"]

# A message holds as much, and what is around the data.
_LIMIT_BYTES = MAX_MESSAGE_SIZE - 1024
_PIECE_BYTES = 64 * 1024


def stdin_pieces(data: Any) -> list[tuple[str | list[int], int]]:
    """Return each payload's data and its size in bytes, for whatever has a buffer.

    Text (UTF-8) goes whole. Other bytes are an array of numbers, and a payload holds at
    most 100,000 values, so they go in pieces. Raises ``UsageError`` for what has no buffer,
    ``MessageTooLarge`` above the size of a message.
    """
    content = _bytes(data)
    try:
        return [(content.decode(), len(content))]
    except UnicodeDecodeError:
        cuts = range(0, len(content), _PIECE_BYTES)
        pieces = [content[cut : cut + _PIECE_BYTES] for cut in cuts]
        return [(list(piece), len(piece)) for piece in pieces]


def _bytes(data: Any) -> bytes:
    try:
        view = memoryview(data)
    except TypeError:
        raise UsageError(f"data must be bytes, not {type(data).__name__}") from None
    with view:
        if view.nbytes > _LIMIT_BYTES:
            raise MessageTooLarge(view.nbytes, _LIMIT_BYTES)
        return view.tobytes()
