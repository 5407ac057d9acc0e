"""Frames between server and keeper: whole, in pieces, broken."""

from __future__ import annotations

import pytest

from descartes_fast.server.keeper import protocol
from descartes_fast.server.keeper.protocol import BrokenFrame, FrameReader, frame


def test_frames_come_back_whatever_the_pieces() -> None:
    sent = [
        ({"op": "hello", "id": 1}, b""),
        ({"op": "write", "id": 2, "text": "\udcff ä €"}, b"\x00\xff" * 1000),
        ({"op": "launch", "argv": []}, b"x"),
    ]
    stream = b"".join(frame(header, body) for header, body in sent)
    for size in (1, 2, 7, 1000, len(stream)):
        reader = FrameReader()
        received = []
        for start in range(0, len(stream), size):
            received += reader.feed(stream[start : start + size])
        assert received == sent


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff\x00\x00\x00\x00",
        b"\x00\x00\x00\x02\xff\xff\xff\xff{}",
        b"\x00\x00\x00\x01\x00\x00\x00\x00{",
        b"\x00\x00\x00\x02\x00\x00\x00\x00[]",
        b"\x00\x00\x00\x02\x00\x00\x00\x00\xff\xff",
    ],
)
def test_broken_frame_is_refused_before_its_length_is_allocated(data: bytes) -> None:
    with pytest.raises(BrokenFrame):
        FrameReader().feed(data)


def test_frame_over_the_limits_is_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_HEADER_BYTES", 100)
    monkeypatch.setattr(protocol, "MAX_BODY_BYTES", 100)
    assert frame({"a": 1}, b"x" * 100)
    with pytest.raises(BrokenFrame):
        frame({"a": "x" * 100})
    with pytest.raises(BrokenFrame):
        frame({}, b"x" * 101)
