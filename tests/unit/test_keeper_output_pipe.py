"""One output stream: moved, limited, trimmed, and kept through a disk that refuses."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from descartes_fast.errors import OutputGone
from descartes_fast.server.keeper import output_files, output_pipe
from descartes_fast.server.keeper.output_files import OpenFiles
from descartes_fast.server.keeper.output_pipe import Budget, Outcome, OutputPipe, kept
from descartes_fast.server.output import OutputFile

MakePipe = Callable[..., "tuple[int, OutputPipe]"]


@pytest.fixture
def make_pipe(tmp_path: Path) -> Iterator[MakePipe]:
    """Return a function that makes a pipe's write end and what moves its other end."""
    made: list[tuple[int, OutputPipe]] = []
    usual_files = OpenFiles()

    def make(
        limit_bytes: int = 1 << 20,
        policy: str = "trim",
        budget: Budget | None = None,
        files: OpenFiles | None = None,
    ) -> tuple[int, OutputPipe]:
        path = tmp_path / f"stream{len(made)}"
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        pipe = OutputPipe(
            read_end,
            str(path),
            limit_bytes=limit_bytes,
            policy=policy,
            budget=budget or Budget(),
            files=usual_files if files is None else files,
        )
        made.append((write_end, pipe))
        return write_end, pipe

    yield make
    for write_end, pipe in made:
        pipe.close()
        os.close(write_end)


def push(write_end: int, pipe: OutputPipe, data: bytes) -> Outcome:
    os.write(write_end, data)
    return pipe.move()


def hang_up(write_end: int) -> None:
    """Close a pipe's end, and leave its number to something else."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, write_end)
    os.close(null)


def read(pipe: OutputPipe, offset: int, count: int = 1 << 20) -> bytes:
    return OutputFile(pipe.path, pipe.start, pipe.end).read(offset, count)


def test_pipe_is_moved_until_empty_and_then_to_its_end(make_pipe: MakePipe) -> None:
    write_end, pipe = make_pipe()
    assert pipe.move() is Outcome.EMPTY
    assert push(write_end, pipe, b"hello") is Outcome.MOVED
    assert pipe.move() is Outcome.EMPTY
    assert (pipe.start, pipe.end, read(pipe, 1)) == (0, 5, b"ello")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, write_end)
    os.close(devnull)
    assert pipe.move() is Outcome.END


def test_trim_keeps_at_most_the_limit_and_offsets_stay_true(make_pipe: MakePipe) -> None:
    limit = 100_000
    write_end, pipe = make_pipe(limit)
    sent = b""
    for n in range(200):
        piece = b"%06d\n" % n * 1000
        sent += piece
        os.write(write_end, piece)
        while pipe.move() is Outcome.MOVED:
            pass
        assert pipe.end == len(sent)
        assert pipe.end - pipe.start <= limit
        assert read(pipe, pipe.start) == sent[pipe.start :]
    with pytest.raises(OutputGone):
        read(pipe, pipe.start - 1)
    assert os.stat(pipe.path).st_blocks * 512 <= limit + 8192


def test_tiny_limit_still_lets_the_agent_go_on(make_pipe: MakePipe) -> None:
    write_end, pipe = make_pipe(1)
    os.write(write_end, b"abc")
    for end in (1, 2, 3):
        assert pipe.move() is Outcome.MOVED
        assert (pipe.start, pipe.end) == (end - 1, end)
    assert read(pipe, 2) == b"c"


def test_wait_is_full_until_released(make_pipe: MakePipe) -> None:
    write_end, pipe = make_pipe(10, "wait")
    assert push(write_end, pipe, b"0123456789abc") is Outcome.MOVED
    assert pipe.move() is Outcome.FULL
    pipe.release(4)
    assert pipe.move() is Outcome.MOVED
    assert 0 < pipe.start <= 4
    assert pipe.end - pipe.start <= 10
    pipe.release(1 << 60)
    while pipe.move() is Outcome.MOVED:
        pass
    assert pipe.end == 13
    assert read(pipe, pipe.start) == b"0123456789abc"[pipe.start :]


def test_finishing_stream_is_moved_whatever_the_limit(make_pipe: MakePipe) -> None:
    write_end, pipe = make_pipe(4, "wait")
    assert push(write_end, pipe, b"0123456789") is Outcome.MOVED
    assert pipe.move() is Outcome.FULL
    pipe.finishing = True
    assert pipe.move() is Outcome.MOVED
    assert pipe.end == 10


def test_budget_trims_the_largest_stream(make_pipe: MakePipe) -> None:
    budget = Budget()
    budget.limit_bytes = 50_000
    big_end, big = make_pipe(budget=budget)
    small_end, small = make_pipe(budget=budget)
    assert push(big_end, big, b"b" * 50_000) is Outcome.MOVED
    assert push(small_end, small, b"s" * 100) is Outcome.MOVED
    assert big.start > 0
    assert (small.start, small.end) == (0, 100)
    assert budget.kept_bytes == big.end - big.start + small.end <= 50_000
    big.close()
    assert budget.kept_bytes == 100


def test_budget_without_anything_to_trim_lets_streams_wait(make_pipe: MakePipe) -> None:
    budget = Budget()
    budget.limit_bytes = 5
    write_end, pipe = make_pipe(policy="wait", budget=budget)
    assert push(write_end, pipe, b"0123456789") is Outcome.MOVED
    assert pipe.end == 5
    assert pipe.move() is Outcome.FULL


def test_refused_splice_leaves_the_bytes_in_the_pipe(
    make_pipe: MakePipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not hasattr(os, "splice"):
        pytest.skip("no splice here")
    write_end, pipe = make_pipe()

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "splice", full)
        assert push(write_end, pipe, b"precious") is Outcome.REFUSED
        assert pipe.move() is Outcome.REFUSED
        assert pipe.end == 0
    assert capsys.readouterr().err.count("cannot be written") == 1
    assert os.read(pipe.fd, 3) == b"pre", "still in the pipe"
    assert pipe.move() is Outcome.MOVED
    assert read(pipe, 0) == b"cious"


def test_refused_write_without_splice_keeps_what_was_read(
    make_pipe: MakePipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_end, pipe = make_pipe()

    def cannot(*_: object, **__: object) -> int:
        raise OSError(errno.EINVAL, "not of this file")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "splice", cannot, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert push(write_end, pipe, b"precious") is Outcome.REFUSED
        assert pipe.move() is Outcome.REFUSED
        assert pipe.end == 0
    with monkeypatch.context() as patch:
        real = os.pwrite
        patch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
        assert [pipe.move() for _ in range(3)] == [Outcome.MOVED] * 3
    assert pipe.move() is Outcome.EMPTY
    assert read(pipe, 0) == b"precious"


def test_stream_of_an_earlier_keeper_goes_on_after_what_its_file_holds(
    make_pipe: MakePipe,
) -> None:
    budget = Budget()
    write_end, before = make_pipe(40_000)
    for n in range(3):
        push(write_end, before, b"%d" % n * 20_000)
    assert before.start > 0
    pipe = OutputPipe(
        os.dup(before.fd),
        before.path,
        limit_bytes=40_000,
        policy="trim",
        budget=budget,
        files=OpenFiles(),
    )
    pipe.go_on(*kept(before.path))
    assert (pipe.start, pipe.end) == (before.start, before.end)
    assert budget.kept_bytes == pipe.end - pipe.start
    assert push(write_end, pipe, b"more") is Outcome.MOVED
    assert read(pipe, 60_000) == b"more"
    pipe.close()
    assert budget.kept_bytes == 0


def test_file_system_without_holes_makes_the_agent_wait(
    make_pipe: MakePipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(output_pipe, "punch_hole", cannot)
    write_end, pipe = make_pipe(8)
    assert push(write_end, pipe, b"0123456789") is Outcome.MOVED
    assert pipe.move() is Outcome.FULL
    assert "cannot be trimmed" in capsys.readouterr().err
    assert (pipe.start, pipe.end) == (0, 8)
    assert read(pipe, 0) == b"01234567"


def test_stream_without_a_byte_makes_no_file(make_pipe: MakePipe) -> None:
    write_end, pipe = make_pipe()
    assert pipe.move() is Outcome.EMPTY
    hang_up(write_end)
    assert pipe.move() is Outcome.END
    assert not os.path.exists(pipe.path)
    assert kept(pipe.path) == (0, 0)


def test_last_byte_before_the_other_end_is_closed_is_moved(make_pipe: MakePipe) -> None:
    write_end, pipe = make_pipe()
    os.write(write_end, b"last words")
    hang_up(write_end)
    assert [pipe.move() for _ in range(2)] == [Outcome.MOVED, Outcome.END]
    assert read(pipe, 0) == b"last words"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC])
def test_file_that_cannot_be_opened_makes_the_agent_wait(
    make_pipe: MakePipe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    def cannot(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    write_end, pipe = make_pipe()
    with monkeypatch.context() as patch:
        patch.setattr(output_files, "_opened", cannot)
        assert push(write_end, pipe, b"precious") is Outcome.REFUSED
        assert pipe.move() is Outcome.REFUSED
    assert "the agent waits" in capsys.readouterr().err
    assert pipe.move() is Outcome.MOVED
    assert read(pipe, 0) == b"precious"


def test_streams_share_the_files_that_may_be_open(make_pipe: MakePipe) -> None:
    files = OpenFiles(2)
    pipes = [make_pipe(files=files) for _ in range(5)]
    for n in range(3):
        for write_end, pipe in pipes:
            assert push(write_end, pipe, b"%d\n" % n) is Outcome.MOVED
            assert len(files) <= 2
    assert [read(pipe, 0) for _, pipe in pipes] == [b"0\n1\n2\n"] * 5
    assert pipes[0][1].move() is Outcome.EMPTY
    assert pipes[0][1].path not in files


def test_stream_whose_file_was_closed_is_trimmed(make_pipe: MakePipe) -> None:
    files = OpenFiles(1)
    write_end, pipe = make_pipe(files=files)
    push(write_end, pipe, b"x" * 20_000)
    push(*make_pipe(files=files), b"other")
    assert pipe.trim(16_384)
    assert (pipe.start, read(pipe, 16_384)) == (16_384, b"x" * 3_616)


def test_silent_streams_give_way_where_descriptors_run_short(
    make_pipe: MakePipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = OpenFiles(10)
    silent = [make_pipe(files=files) for _ in range(3)]
    for write_end, pipe in silent:
        push(write_end, pipe, b"once")
    opened = output_files._opened

    def scarce(path: str) -> int:
        if len(files):
            raise OSError(errno.EMFILE, "none left")
        return opened(path)

    monkeypatch.setattr(output_files, "_opened", scarce)
    write_end, pipe = make_pipe(files=files)
    assert push(write_end, pipe, b"now") is Outcome.MOVED
    assert push(*silent[0], b" more") is Outcome.MOVED
    assert read(silent[0][1], 0) == b"once more"


def test_what_is_kept_of_a_stream_whose_directory_is_gone_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kept(str(tmp_path / "gone" / "stdout"))
