"""Broken messages in their millions, from whole ones and a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

# Markers at the edges of what they may say, and values that are right in another place.
PIECES = [
    bytes([marker])
    for marker in (0x00, 0x7F, 0x80, 0x81, 0x90, 0x91, 0xA0, 0xA1, 0xC0, 0xC1, 0xC2, 0xC3, 0xE0)
] + [
    bytes.fromhex(text)
    for text in (
        "c400", "c40161", "c402fffe", "c5000161", "c60000000161", "c7000100", "ca7fc00000",
        "ca3fc00000", "cb7ff0000000000000", "cb3ff8000000000000", "cc00", "ccff", "cd0001",
        "cdffff", "ce00000001", "ceffffffff", "cf0000000000000001", "cfffffffffffffffff", "d080",
        "d0ff", "d1ff7f", "d27fffffff", "d38000000000000000", "d37fffffffffffffff", "d40000",
        "d9016b", "da00016b", "db000000016b", "dc0000", "dc0001c0", "dd00000000", "dde0000000",
        "de0000", "de0001a16bc0", "df00000000", "dfffffffff", "a4c3a9c3a9", "a3eda080", "a2c080",
        "a4f4908080", "a3e282ac", "82a16101a16102", "81a57061757365c0", "8101c0",
        "92ce69153ec0ce3b9aca00", "92cf7fffffffffffffff00", "82b0736563735f73696e63655f65706f6368"
        "01b16e616e6f735f73696e63655f65706f636802", "d9"
        "2431313131313131312d323232322d333333332d343434342d353535353535353535353535",
    )
]  # fmt: skip


def mutations(whole: list[bytes], seed: int, count: int) -> Iterator[bytes]:
    """Yield ``count`` inputs, each a message changed in one to four places."""
    source = random.Random(seed)
    for _ in range(count):
        data = bytearray(source.choice(whole))
        for _ in range(source.choice((1, 1, 1, 2, 2, 3, 4))):
            _change(data, source, whole)
        yield bytes(data)


def _change(data: bytearray, source: random.Random, whole: list[bytes]) -> None:
    at = source.randrange(len(data) + 1)
    kind = source.randrange(8)
    if kind == 0 and data:
        data[at % len(data)] ^= 1 << source.randrange(8)
    elif kind == 1 and data:
        data[at % len(data)] = source.randrange(256)
    elif kind == 2:
        del data[at : at + source.choice((1, 1, 2, 4, 16))]
    elif kind == 3:
        data[at:at] = source.choice(PIECES)
    elif kind == 4:
        piece = source.choice(PIECES)
        data[at : at + len(piece)] = piece
    elif kind == 5:
        data[at : at + 1] = source.choice(PIECES)
    elif kind == 6:
        other = source.choice(whole)
        begin = source.randrange(len(other) + 1)
        data[at:at] = other[begin : begin + source.choice((1, 2, 5, 18, 40))]
    else:
        del data[at:]
