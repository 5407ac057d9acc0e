"""The frames between the server and its keeper; both ends use this file.

A frame is ``u32 header length, u32 body length`` (big-endian), a JSON object, and raw
bytes (what goes to an agent's stdin). Three kinds of header:

    request   {"op": NAME, "id": N, ...}              server to keeper
    reply     {"re": N, ...}                          keeper to server, in any order
              {"re": N, "code": CODE, "words": TEXT}  a refusal; codes as in ``errors.py``
    event     {"event": NAME, "agent": ID, ...}       keeper to server, unasked

Where ``fds`` names descriptors, they travel with the frame (:mod:`.passing`). Requests
with the id 0 get no reply. Events: ``grew`` and ``ended``, and ``stdin`` when the keeper
has closed an agent's stdin before its end: after the last byte, or as nobody reads it.
The body of ``signal_many`` is the ids of agents, 16 bytes each; its reply says in
``refused`` which were not signalled: their positions, each with code and words.

The ``environment`` of a ``launch`` is a text, ``NAME=value`` of each variable with a NUL between
them. The agent may have ended before it is answered: the answer brings no descriptors then, and
has the event in its ``ended``.

The server holds duplicates of what must not go away with the keeper: ``launch`` and
``duplicates`` bring ``stdin``, ``stdout``, ``stderr``, ``exit`` and ``backlog``, ``write``
brings ``backlog`` when it has made it, ``adopt`` gives them to the next keeper. The
``backlog`` (:mod:`.backlog`) has what was taken for stdin and is not in its pipe yet; with
``closing`` stdin is closed after it. A duplicate of stdin keeps the agent waiting for its
end, so the server closes its own at the event ``stdin``.

The first request is ``hello``, which is the same in every version: ``{"op", "id",
"version", "on_disconnect"}``, answered by ``{"re", "version", "build", "pid",
"instance"}``. It makes its connection the server's: the one before it is closed, and what
was to be started for that is not started any more. ``on_disconnect`` says what becomes of
the agents when the connection is lost: ``keep`` or ``end``. Where the versions differ only
``renew``, ``ping`` and ``end`` are understood.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any
from uuid import UUID

__all__ = [
    "ID_BYTES",
    "MAX_BODY_BYTES",
    "MAX_HEADER_BYTES",
    "VERSION",
    "BrokenFrame",
    "FrameReader",
    "Refusal",
    "compact_json",
    "frame",
    "id_at",
]

VERSION = 5

MAX_HEADER_BYTES = 64 * 1024 * 1024
"""Far above what execve(2) takes, so a launch that is too long is refused by the kernel."""

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Above the largest message of the wire (10 MiB): a task may go by stdin whole."""

ID_BYTES = 16
"""Of an id in the body of ``signal_many``."""

_LENGTHS = struct.Struct(">II")

# Of every frame, twice: json.dumps() and json.loads() take longer for the way to these.
compact_json = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode


class BrokenFrame(ValueError):
    """The bytes are not frames of this protocol; the connection cannot go on."""


class Refusal(Exception):
    """A request that is not done: the code and the words of the reply."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


def frame(header: Mapping[str, Any], body: bytes = b"") -> bytes:
    """Return the bytes of one frame. Raises ``BrokenFrame`` above the limits."""
    text = compact_json(header).encode("ascii")
    if len(text) > MAX_HEADER_BYTES or len(body) > MAX_BODY_BYTES:
        raise BrokenFrame(f"a frame of {len(text)} and {len(body)} bytes is over the limits")
    return _LENGTHS.pack(len(text), len(body)) + text + body


def id_at(agent_ids: bytes, position: int) -> str:
    """Return, as text, one of the ids in the body of ``signal_many``."""
    first = ID_BYTES * position
    return str(UUID(bytes=agent_ids[first : first + ID_BYTES]))


class FrameReader:
    """Turns the bytes of a stream, in whatever pieces they come, into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[tuple[dict[str, Any], bytes]]:
        """Take more bytes; return the frames that are complete. Raises ``BrokenFrame``."""
        buffer = self._buffer
        buffer += data
        frames = []
        position = 0
        while len(buffer) - position >= _LENGTHS.size:
            header_length, body_length = _LENGTHS.unpack_from(buffer, position)
            if header_length > MAX_HEADER_BYTES or body_length > MAX_BODY_BYTES:
                raise BrokenFrame("a length is over the limits")
            start = position + _LENGTHS.size
            end = start + header_length + body_length
            if len(buffer) < end:
                break
            frames.append(
                (
                    _header(buffer[start : start + header_length]),
                    bytes(buffer[start + header_length : end]),
                )
            )
            position = end
        del buffer[:position]
        return frames


def _header(data: bytearray) -> dict[str, Any]:
    try:
        text = data.decode("ascii")
        header, end = _decode(text)
    except ValueError:
        raise BrokenFrame("a header is not JSON") from None
    if end != len(text):
        raise BrokenFrame("a header is more than JSON")
    if not isinstance(header, dict):
        raise BrokenFrame("a header is not an object")
    return header
