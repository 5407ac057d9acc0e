"""An agent's stdin: whole or not at all, and bounded."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from descartes_fast.server.keeper import renewal
from descartes_fast.server.keeper.backlog import FileBacklog
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
    began = time.monotonic()
    loop.call_later(0.05, lambda: None)
    loop.turn()
    assert time.monotonic() - began >= 0.05, "the loop is woken by what is closed"
    os.close(duplicate)


def test_reader_that_never_catches_up_gets_every_byte_and_the_file_stays_small(
    ends: tuple[int, InputPipe],
) -> None:
    read_end, pipe = ends
    sent = bytearray()
    received = bytearray()
    piece = os.urandom(500_000)
    while len(sent) < 12_000_000:
        sent += piece[: pipe.write(piece)]
        while len(sent) - len(received) > BUFFER_BYTES - len(piece):
            received += os.read(read_end, 40_000)
            pipe.flush()
        assert pipe.waits
        if pipe.backlog_fd >= 0:
            assert os.fstat(pipe.backlog_fd).st_blocks * 512 <= 4 * 1024 * 1024
    pipe.close_after_backlog()
    while data := os.read(read_end, 1 << 20):
        received += data
        pipe.flush()
    assert received == sent


def test_backlog_is_used_again_when_it_was_emptied(ends: tuple[int, InputPipe]) -> None:
    read_end, pipe = ends
    fds = set()
    for byte in b"abc":
        data = bytes([byte]) * 300_000
        pipe.write(data)
        fds.add(pipe.backlog_fd)
        received = b""
        while len(received) < len(data):
            received += os.read(read_end, 1 << 20)
            pipe.flush()
        assert received == data
        if pipe.backlog_fd >= 0:
            assert os.fstat(pipe.backlog_fd).st_size == 0
    assert len(fds) == 1


def test_without_a_file_the_heap_keeps_it(
    ends: tuple[int, InputPipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    read_end, pipe = ends
    data = os.urandom(300_000)
    pipe.write(data, close=True)
    assert (pipe.backlog_fd, pipe.state) == (-1, "closing")
    received = b""
    while piece := os.read(read_end, 65536):
        received += piece
        pipe.flush()
    assert (received, pipe.state) == (data, "closed")


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="there is no such file here")
def test_duplicate_of_the_backlog_goes_on_where_the_first_stopped(loop: Loop) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    pipe = InputPipe(loop, write_end)
    data = os.urandom(700_000)
    pipe.write(data)
    received = os.read(read_end, 1 << 20)
    pipe.flush()
    fd, backlog = os.dup(write_end), FileBacklog.found(os.dup(pipe.backlog_fd))
    pipe.close()
    heir = InputPipe(loop, fd, backlog)
    heir.close_after_backlog()
    while piece := os.read(read_end, 1 << 20):
        received += piece
        heir.flush()
    assert received == data
    os.close(read_end)


@pytest.mark.parametrize("in_file", [True, False])
def test_saved_pipe_is_restored_with_every_byte(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, in_file: bool
) -> None:
    if not in_file:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    pipe = InputPipe(loop, write_end)
    data = bytes(range(256)) * 2000
    pipe.write(data, close=True)
    received = os.read(read_end, 1 << 20)
    state = json.dumps(pipe.saved(), default=renewal._in_text)
    restored = InputPipe.restored(loop, json.loads(state, object_hook=renewal._from_text))
    assert restored.state == "closing"
    restored.flush()
    while piece := os.read(read_end, 1 << 20):
        received += piece
        restored.flush()
    assert received == data
    os.close(read_end)
