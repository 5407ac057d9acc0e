"""Reading output files: from offsets, at their ends, and after the front was trimmed."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from descartes_fast.errors import OutputGone, ServerBusy
from descartes_fast.server.output import OutputFile


@pytest.fixture
def output(tmp_path: Path) -> OutputFile:
    path = tmp_path / "stdout"
    path.write_bytes(b"0123456789")
    return OutputFile(path, 0, 10)


def test_read_returns_what_is_there_and_no_more(output: OutputFile) -> None:
    assert output.read(0, 4) == b"0123"
    assert output.read(8, 100) == b"89"
    assert output.read(10, 1) == b""
    assert output.read(1 << 60, 1) == b""
    output.end = 5
    assert output.read(3, 100) == b"34"


def test_read_before_the_start_says_what_is_gone(output: OutputFile) -> None:
    output.start = 6
    with pytest.raises(OutputGone) as gone:
        output.read(2, 100)
    assert (gone.value.start, gone.value.end) == (2, 6)
    assert output.read(6, 100) == b"6789"


def test_read_believes_the_keeper_more_than_what_it_was_told(output: OutputFile) -> None:
    Path(f"{output.path}.start").write_bytes(struct.pack(">Q", 7))
    with pytest.raises(OutputGone) as gone:
        output.read(0, 100)
    assert gone.value.end == 7
    assert output.read(7, 100) == b"789"


def test_file_that_was_removed_is_gone(output: OutputFile) -> None:
    Path(output.path).unlink()
    with pytest.raises(OutputGone) as gone:
        output.read(0, 1)
    assert gone.value.end == 10


def test_shortage_of_descriptors_is_busy_and_a_failing_disk_is_not(
    output: OutputFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_with(number: int) -> None:
        def opened(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "open", opened)

    fail_with(errno.EMFILE)
    with pytest.raises(ServerBusy, match="Too many open files"):
        output.read(0, 1)
    fail_with(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        output.read(0, 1)
