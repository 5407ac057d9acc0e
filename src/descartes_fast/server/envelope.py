"""The frames of a request taken apart: what its reply must repeat, and its body.

A REQ client's message reaches a ROUTER as ``[identity, "", body]``, with ``REQ_CORRELATE``
as ``[identity, id, "", body]``, a bare DEALER's as ``[identity, body]``; devices in between
add frames in front. The envelope is everything up to and including the first empty
frame, or the identity alone if there is none (ZeroMQ RFC 28).
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Envelope", "split_envelope"]

Envelope = tuple[bytes, ...]

_MAX_FRAMES = 16
_MAX_ENVELOPE_BYTES = 4096  # a reply repeats them: a request may not make it much larger


def split_envelope(frames: Sequence[bytes]) -> tuple[Envelope, bytes] | None:
    """Return a request's envelope and body, or ``None`` if it has no body or no sane layout.

    Frames after the body are ignored, as long as they are few.
    """
    if not 2 <= len(frames) <= _MAX_FRAMES or not frames[0]:
        return None
    end = 1
    for position in range(1, len(frames)):
        if not frames[position]:
            end = position + 1
            break
    if end == len(frames):
        return None
    envelope = tuple(frames[:end])
    if not frames[end] or (end > 1 and sum(map(len, envelope)) > _MAX_ENVELOPE_BYTES):
        return None
    return envelope, frames[end]
