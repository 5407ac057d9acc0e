"""Queries by line: filters, windows, lines of every kind, and bounds that hold."""

from __future__ import annotations

import builtins
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from descartes_fast.errors import AgentTimeout, InvalidContext, Unsupported
from descartes_fast.server.output import MAX_LINE_BYTES, OutputFile, last_lines, query


def made(tmp_path: Path, data: bytes, name: str = "stdout", start: int = 0) -> OutputFile:
    path = tmp_path / name
    path.write_bytes(data)
    return OutputFile(path, start, len(data))


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\n\r\nb\r", ["a", "", "b"]),
        (b"\n\na\n", ["", "", "a"]),
        (b"a\x0bb\x85\xe2\x80\xa8c\n", ["a\x0bb\ufffd\u2028c"]),
        (b"\xff\n\xc3\n\xa4\n", ["\ufffd", "\ufffd", "\ufffd"]),
        ("ä€𝄞\n".encode(), ["ä€𝄞"]),
        (b"nul\0inside", ["nul\0inside"]),
    ],
)
def test_lines_are_split_at_newlines_only(tmp_path: Path, data: bytes, lines: list[str]) -> None:
    result = query([made(tmp_path, data)])
    assert (result.lines, result.total, result.has_more) == (lines, len(lines), False)


def test_lines_do_not_depend_on_the_blocks_they_are_read_in(tmp_path: Path) -> None:
    lines = [f"{n} ä" * (n % 50) for n in range(30_000)]
    output = made(tmp_path, "\n".join(lines).encode() + b"\n")
    assert output.end > 3 * 1024 * 1024
    assert query([output], max_bytes=1 << 30).lines == lines
    assert query([output], offset=29_990).lines == lines[29_990:]
    assert last_lines(output, 7) == (lines[-7:], len(lines))


def test_window_counts_matching_lines_over_both_streams(tmp_path: Path) -> None:
    stdout = made(tmp_path, b"".join(b"out %d\n" % n for n in range(100)))
    stderr = made(tmp_path, b"".join(b"err %d\n" % n for n in range(100)), "stderr")
    result = query([stdout, stderr], pattern=r"\b\d*9$", offset=8, limit=4)
    assert result.lines == ["out 89", "out 99", "err 9", "err 19"]
    assert (result.total, result.has_more) == (20, True)
    assert query([stdout], limit=0).lines == []
    assert query([stdout], offset=1000).has_more is False
    assert query([stdout], offset=90, limit=10).has_more is False


def test_line_above_the_limit_is_cut_and_says_so(tmp_path: Path) -> None:
    output = made(tmp_path, b"a" * (3 * MAX_LINE_BYTES) + b"\nshort\n")
    result = query([output])
    assert result.lines[0] == "a" * MAX_LINE_BYTES + f" [line cut: {2 * MAX_LINE_BYTES} bytes more]"
    assert result.lines[1] == "short"


def test_result_is_bounded_in_bytes(tmp_path: Path) -> None:
    output = made(tmp_path, b"x" * 95 + b"\n" + (b"x" * 95 + b"\n") * 99)
    result = query([output], max_bytes=1000)
    assert len(result.lines) == 10
    assert (result.total, result.has_more) == (100, True)
    empty = made(tmp_path, b"\n" * 1000)
    assert len(query([empty], max_bytes=1000).lines) == 200
    assert len(query([output], max_bytes=1).lines) == 1


def test_trimmed_stream_begins_with_its_first_whole_line(tmp_path: Path) -> None:
    output = made(tmp_path, b"gone\npartial\nwhole\nlast", start=7)
    assert query([output]).lines == ["whole", "last"]
    output.start = 0
    Path(f"{output.path}.start").write_bytes(struct.pack(">Q", 14))
    assert query([output]).lines == ["last"]


def test_last_lines_of_nothing_is_nothing(tmp_path: Path) -> None:
    output = made(tmp_path, b"a\nb\n")
    assert last_lines(output, 0) == ([], 2)
    assert last_lines(output, 5) == (["a", "b"], 2)


@pytest.mark.parametrize("pattern", ["(", "a{1000000}", r"(?=look)", r"\1", "((a{1000}){1000})"])
def test_pattern_that_is_none_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InvalidContext, match="regular expression"):
        query([made(tmp_path, b"a\n")], pattern=pattern)


@pytest.mark.parametrize("pattern", ["(x+x+)+y", "(a|aa)*b", "(.*)*$q", "[a-q][^u-z]{13}x"])
def test_pattern_that_would_backtrack_for_ever_takes_linear_time(
    tmp_path: Path, pattern: str
) -> None:
    output = made(tmp_path, b"x" * 100_000 + b"\n" + b"a" * 100_000 + b"\n")
    began = time.monotonic()
    assert query([output], pattern=pattern).total == 0
    assert time.monotonic() - began < 2


def test_query_gives_up_after_its_time(tmp_path: Path) -> None:
    with pytest.raises(AgentTimeout):
        query([made(tmp_path, b"a\n")], timeout_secs=-1)


def test_filter_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "re2":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Unsupported, match=r"descartes-fast\[query\]"):
        query([made(tmp_path, b"a\n")], pattern="a")
    assert query([made(tmp_path, b"a\n")]).total == 1


def test_short_lines_by_the_million_are_searched_in_time(tmp_path: Path) -> None:
    output = made(tmp_path, b"a\n" * 8_000_000)
    began = time.monotonic()
    assert query([output], pattern="b$").total == 0
    assert query([output], pattern="a$", limit=1).total == 8_000_000
    assert query([output], offset=7_999_999).lines == ["a"]
    assert last_lines(output, 1) == (["a"], 8_000_000)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        (r"\Aa", ["ab", "ac"]),
        (r"b\z", ["ab", "b"]),
        (r"^a", ["ab", "ac"]),
        (r"b$", ["ab", "b"]),
        (r"(?-m:^a)", ["ab", "ac"]),
        (r"(?s)c.b", []),
        (r"c\sb", []),
        (r"(?i)AB|\bb\b", ["ab", "b"]),
        (r"", ["ab", "ac", "b"]),
    ],
)
def test_pattern_sees_each_line_by_itself(tmp_path: Path, pattern: str, lines: list[str]) -> None:
    assert query([made(tmp_path, b"ab\nac\nb\n")], pattern=pattern).lines == lines


EXPENSIVE = r"(?:.*a.*b){30}|([a-c]{1,900}d)"
"""Too large for RE2's automaton: about 20 microseconds a byte."""


def test_expensive_pattern_is_given_up_in_time(tmp_path: Path) -> None:
    long = b"".join(b"a" * 100_000 + b"%d\n" % n for n in range(20))
    middling = b"".join(b"a" * 30_000 + b"%d\n" % n for n in range(60))
    for name, data in (("long", long), ("middling", middling)):
        output = made(tmp_path, data, name)
        began = time.monotonic()
        with pytest.raises(AgentTimeout):
            query([output], pattern=EXPENSIVE, timeout_secs=0.2)
        assert time.monotonic() - began < 5


def test_query_that_nobody_waits_for_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(AgentTimeout):
        query([made(tmp_path, b"a\n")], is_cancelled=lambda: True)


def test_filter_sees_the_first_64_kib_of_a_line(tmp_path: Path) -> None:
    output = made(tmp_path, b"x" * 65_535 + b"yz\n")
    assert query([output], pattern="xy").total == 1
    assert query([output], pattern="yz").total == 0


def test_words_about_a_broken_pattern_are_text(tmp_path: Path) -> None:
    with pytest.raises(InvalidContext, match=r"RE2: missing \): \($"):
        query([made(tmp_path, b"a\n")], pattern="(")
