"""Frames of requests: what is repeated in the reply, what is the body, what is dropped."""

from __future__ import annotations

import pytest

from descartes_fast.server.envelope import split_envelope


@pytest.mark.parametrize(
    ("frames", "envelope", "body"),
    [
        pytest.param([b"id", b"", b"body"], (b"id", b""), b"body", id="req"),
        pytest.param(
            [b"id", b"\0\0\0\1", b"", b"body"], (b"id", b"\0\0\0\1", b""), b"body", id="correlate"
        ),
        pytest.param([b"id", b"body"], (b"id",), b"body", id="bare-dealer"),
        pytest.param(
            [b"proxy", b"id", b"", b"body"], (b"proxy", b"id", b""), b"body", id="through-a-device"
        ),
        pytest.param([b"id", b"", b"body", b"x", b""], (b"id", b""), b"body", id="frames-after"),
        pytest.param([b"id", b"body", b"more"], (b"id",), b"body", id="bare-frames-after"),
    ],
)
def test_split_envelope_of_known_layout_returns_what_to_repeat(
    frames: list[bytes], envelope: tuple[bytes, ...], body: bytes
) -> None:
    assert split_envelope(frames) == (envelope, body)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([], id="nothing"),
        pytest.param([b"id"], id="identity-only"),
        pytest.param([b"id", b""], id="no-body"),
        pytest.param([b"id", b"", b""], id="empty-body"),
        pytest.param([b"", b"", b"body"], id="empty-identity"),
        pytest.param([b"id", *[b"x"] * 200], id="200-frames"),
        pytest.param([b"id", *[b""] * 200], id="200-empty-frames"),
        pytest.param([b"id", b"x" * 5000, b"", b"body"], id="long-envelope"),
    ],
)
def test_split_envelope_of_other_layout_returns_none(frames: list[bytes]) -> None:
    assert split_envelope(frames) is None
