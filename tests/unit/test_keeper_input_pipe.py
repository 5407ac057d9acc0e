"""An agent's stdin: whole or not at all, and bounded."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from descartes_fast.server.keeper.input_pipe import (
    BUFFER_BYTES,
    InputClosed,
    InputFull,
    InputPipe,
)
from descartes_fast.server.keeper.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def ends(loop: Loop) -> Iterator[tuple[int, InputPipe]]:
    """The agent's end, and ours."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    pipe = InputPipe(loop, write_end)
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
        pipe.write(b"b" * (BUFFER_BYTES // 2))
    received = b""
    while len(received) < taken:
        received += os.read(read_end, 1 << 20)
        pipe.flush()
    assert set(received) == set(b"a")
    assert pipe.write(b"b") == 1


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


def test_reader_that_is_gone_is_noticed(loop: Loop) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    pipe = InputPipe(loop, write_end)
    os.close(read_end)
    with pytest.raises(InputClosed):
        pipe.write(b"x")
    with pytest.raises(InputClosed):
        pipe.write(b"x")
    assert pipe.fd == -1


def test_closed_pipe_is_not_watched_though_a_duplicate_is_open(loop: Loop) -> None:
    """A selector keeps what was closed before it was taken out, as long as a duplicate is open."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    duplicate = os.dup(write_end)
    pipe = InputPipe(loop, write_end)
    pipe.write(b"x" * 200_000, close=True)
    received = 0
    while received < 200_000:
        received += len(os.read(read_end, 65536))
        if pipe.waits:
            loop.turn()
    assert pipe.fd == -1
    os.close(read_end)
    loop.call_later(0.05, lambda: None)
    began = time.monotonic()
    loop.turn()
    assert time.monotonic() - began >= 0.05, "the loop is woken by what is closed"
    os.close(duplicate)
