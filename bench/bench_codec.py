"""Encoding and decoding six typical messages: ``pytest bench/bench_codec.py``.

What is measured is a hundred times each. ``python -m bench codec`` runs this, divides, and prints
the ratios.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from .codec_messages import MESSAGES, READERS, TIMES, remake
from .codec_peers import DECODERS, LIBRARIES, TYPED, codec

# The libraries all run in the same pytest, or only the one that `python -m bench codec` names: it
# starts a process for each.
CHOSEN = os.environ.get("DESCARTES_FAST_BENCH_LIBRARY")
decoders = pytest.mark.parametrize("library", [name for name in DECODERS if CHOSEN in (None, name)])
libraries = pytest.mark.parametrize(
    "library", [name for name in LIBRARIES if CHOSEN in (None, name)]
)
typed = pytest.mark.parametrize("library", [name for name in TYPED if CHOSEN in (None, name)])
messages = pytest.mark.parametrize("name", list(MESSAGES))


def describe(benchmark: Any, operation: str, library: str, name: str, size: int) -> None:
    benchmark.group = f"{operation} {name}, {len(TIMES)} times"
    benchmark.extra_info.update(
        operation=operation, library=library, message=name, size=size, times=len(TIMES)
    )


@decoders
@messages
def bench_codec_decode(benchmark: Any, library: str, name: str) -> None:
    ours = codec(library, name)
    decode, data = ours.decode, ours.data
    describe(benchmark, "decode", library, name, len(data))

    def decode_many() -> Any:
        for _ in TIMES:
            found = decode(data)
        return found

    assert benchmark(decode_many) == ours.value


@libraries
@messages
def bench_codec_encode(benchmark: Any, library: str, name: str) -> None:
    ours = codec(library, name)
    encode, value = ours.encode, ours.value
    describe(benchmark, "encode", library, name, len(ours.data))

    def encode_many() -> bytes:
        for _ in TIMES:
            written = encode(value)
        return written

    assert ours.decode(benchmark(encode_many)) == ours.value


@typed
@messages
def bench_codec_decode_and_read_all(benchmark: Any, library: str, name: str) -> None:
    ours = codec(library, name)
    describe(benchmark, "decode and read all", library, name, len(ours.data))
    benchmark(READERS[name], ours.decode, ours.data)


@typed
@messages
def bench_codec_make_and_encode(benchmark: Any, library: str, name: str) -> None:
    # Ours writes payloads, maps and lists when a message is made; this counts that too.
    ours = codec(library, name)
    encode, make = ours.encode, remake(ours.value)
    describe(benchmark, "make and encode", library, name, len(ours.data))

    def make_and_encode_many() -> bytes:
        for _ in TIMES:
            written = encode(make())
        return written

    assert ours.decode(benchmark(make_and_encode_many)) == ours.value
