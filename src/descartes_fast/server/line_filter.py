"""Lines that match a regular expression of RE2: linear time, and never long in one go.

RE2 cannot be interrupted, and a pattern that is too large for its automaton costs up to 25
microseconds a byte. So one search gets at most 64 KiB, and between two of them the caller
may give up.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

from ..errors import InvalidContext, Unsupported

__all__ = ["SEARCHED_BYTES", "LineFilter"]

SEARCHED_BYTES = 64 * 1024
"""Of a longer line only the beginning is searched."""

_REASON_CHARACTERS = 200  # it repeats the pattern
_PATTERN_MEMORY = 1024 * 1024  # of a compiled pattern: bounds the time for one byte of input
# What means the ends of the text, not of a line, although the pattern begins with ``(?m)``.
_TEXT_ANCHORS = re.compile(r"\\[Az]|\(\?[a-zA-Z]*-")


class LineFilter:
    """A compiled pattern.

    Raises ``InvalidContext`` for a pattern that is none, ``Unsupported`` without the package
    that matches them.
    """

    def __init__(self, pattern: str) -> None:
        self._search = _compiled(pattern)
        self._search_block: Callable[[bytes], Any] | None = None
        if not _TEXT_ANCHORS.search(pattern):
            with contextlib.suppress(InvalidContext):  # a little larger, perhaps too large
                self._search_block = _compiled("(?m)" + pattern)

    def matching(self, block: bytes, check: Callable[[], None]) -> list[bytes]:
        """Return the lines of a block that match anywhere.

        A block has whole lines, without the last newline: a single one of any length, or up
        to a few times :data:`SEARCHED_BYTES` of them. ``check`` is called before each search and
        may raise.
        """
        check()
        # Most blocks have nothing to find, and are done with one search instead of thousands.
        if (
            self._search_block is not None
            and len(block) <= SEARCHED_BYTES
            and not self._search_block(block)
        ):
            return []
        lines = block.split(b"\n")
        matching = set()
        for line in set(lines):  # short lines are often the same
            check()
            if self._search(line[:SEARCHED_BYTES]):
                matching.add(line)
        return [line for line in lines if line in matching]


def _compiled(pattern: str) -> Callable[[bytes], Any]:
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
    except UnicodeEncodeError:
        raise InvalidContext("the filter is not text that can be encoded") from None
    except re2.error as error:
        words = error.args[0] if error.args else "no reason given"
        text = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
        text = text if len(text) <= _REASON_CHARACTERS else text[:_REASON_CHARACTERS] + "..."
        raise InvalidContext(f"the filter is not a regular expression of RE2: {text}") from None
    return search
