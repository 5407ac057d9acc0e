"""An agent's stdin: whole or not at all, bounded, once for each key."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from descartes_fast.server.keeper.input_pipe import (
    BUFFER_BYTES,
    InputClosed,
    InputFull,
    InputPipe,
)


@pytest.fixture
def ends() -> Iterator[tuple[int, InputPipe]]:
    """The agent's end, and ours."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    pipe = InputPipe(write_end)
    yield read_end, pipe
    pipe.close()
    os.close(read_end)


def test_write_beyond_the_pipe_is_kept_and_flushed_in_order(ends: tuple[int, InputPipe]) -> None:
    read_end, pipe = ends
    data = os.urandom(300_000)
    assert pipe.write(data) == len(data)
    assert pipe.waits
    received = b""
    while len(received) < len(data):
        received += os.read(read_end, 65536)
        pipe.flush()
    assert received == data
    assert not pipe.waits


def test_write_that_does_not_fit_is_refused_whole(ends: tuple[int, InputPipe]) -> None:
    read_end, pipe = ends
    with pytest.raises(InputFull):
        pipe.write(b"x" * (BUFFER_BYTES + 1))
    taken = pipe.write(b"a" * BUFFER_BYTES)
    with pytest.raises(InputFull):
        pipe.write(b"b" * (BUFFER_BYTES // 2), key="again")
    received = b""
    while len(received) < taken:
        received += os.read(read_end, 1 << 20)
        pipe.flush()
    assert set(received) == set(b"a")
    # A refusal is not what a repeat is answered with.
    assert pipe.write(b"b", key="again") == 1


def test_close_comes_after_what_is_buffered(ends: tuple[int, InputPipe]) -> None:
    read_end, pipe = ends
    pipe.write(b"x" * 200_000, close=True)
    with pytest.raises(InputClosed):
        pipe.write(b"more")
    received = 0
    while piece := os.read(read_end, 65536):
        received += len(piece)
        pipe.flush()
    assert received == 200_000
    assert pipe.fd == -1


def test_repeat_is_answered_from_memory_which_is_bounded(ends: tuple[int, InputPipe]) -> None:
    read_end, pipe = ends
    for n in range(300):
        pipe.write(b"x", key=str(n))
    assert pipe.write(b"x", key="299") == 1
    assert len(os.read(read_end, 1000)) == 300
    pipe.write(b"y", key="0")
    assert os.read(read_end, 1000) == b"y"


def test_reader_that_is_gone_is_noticed() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    pipe = InputPipe(write_end)
    os.close(read_end)
    with pytest.raises(InputClosed):
        pipe.write(b"x", key="1")
    with pytest.raises(InputClosed):
        pipe.write(b"x", key="1")
    assert pipe.fd == -1
