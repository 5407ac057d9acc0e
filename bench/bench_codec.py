"""Encoding and decoding six typical messages: ``pytest bench/bench_codec.py``.

``python -m bench codec`` runs this and prints the ratios.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from .codec_messages import MESSAGES, READERS, remake
from .codec_peers import LIBRARIES, TYPED, codec

# The other libraries run in the same pytest, but each in a process of its own where asked:
# `python -m bench codec` sets the one it wants.
CHOSEN = os.environ.get("DESCARTES_FAST_BENCH_LIBRARY")
libraries = pytest.mark.parametrize(
    "library", [name for name in LIBRARIES if CHOSEN in (None, name)]
)
typed = pytest.mark.parametrize("library", [name for name in TYPED if CHOSEN in (None, name)])
messages = pytest.mark.parametrize("name", list(MESSAGES))


def describe(benchmark: Any, operation: str, library: str, name: str, size: int) -> None:
    benchmark.group = f"{operation} {name}"
    benchmark.extra_info.update(operation=operation, library=library, message=name, size=size)


@libraries
@messages
def bench_codec_decode(benchmark: Any, library: str, name: str) -> None:
    ours = codec(library, name)
    describe(benchmark, "decode", library, name, len(ours.data))
    assert benchmark(ours.decode, ours.data) == ours.value


@libraries
@messages
def bench_codec_encode(benchmark: Any, library: str, name: str) -> None:
    ours = codec(library, name)
    describe(benchmark, "encode", library, name, len(ours.data))
    assert ours.decode(benchmark(ours.encode, ours.value)) == ours.value


@typed
@messages
def bench_codec_decode_and_read_all(benchmark: Any, library: str, name: str) -> None:
    ours = codec(library, name)
    decode, read = ours.decode, READERS[name]
    describe(benchmark, "decode and read all", library, name, len(ours.data))

    def decode_and_read(data: bytes) -> None:
        read(decode(data))

    benchmark(decode_and_read, ours.data)


@typed
@messages
def bench_codec_make_and_encode(benchmark: Any, library: str, name: str) -> None:
    # Ours writes payloads, maps and lists when a message is made; this counts that too.
    ours = codec(library, name)
    encode, make = ours.encode, remake(ours.value)
    describe(benchmark, "make and encode", library, name, len(ours.data))

    def make_and_encode() -> bytes:
        return encode(make())

    assert ours.decode(benchmark(make_and_encode)) == ours.value
