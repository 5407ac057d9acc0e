"""Base64 of the core: what the standard library makes of it, and refuses."""

from __future__ import annotations

import base64
import binascii
import random
import string

import pytest

from descartes_fast._core.base64 import decode_base64, encode_base64

ALPHABET = string.ascii_letters + string.digits + "+/"
CHARACTERS = ALPHABET + "==-_ \n\0\x7f\xff\u0141\U0001f600"


@pytest.mark.parametrize("size", [*range(70), 4095, 65536])
def test_bytes_of_every_length_are_what_the_standard_library_says(size: int) -> None:
    data = random.Random(size).randbytes(size)
    text = encode_base64(data)
    assert text == base64.b64encode(data).decode()
    assert text.isascii()
    assert decode_base64(text) == data


def test_every_twelve_bits_are_told() -> None:
    data = b"".join((number << 12 | number).to_bytes(3, "big") for number in range(4096))
    assert encode_base64(data) == base64.b64encode(data).decode()
    assert decode_base64(encode_base64(data)) == data


def test_what_is_not_base64_is_refused() -> None:
    draw = random.Random(7)
    refused = 0
    for _ in range(20_000):
        text = list(encode_base64(draw.randbytes(draw.randrange(12))))
        for _ in range(draw.randrange(3)):
            place = draw.randrange(len(text) + 1)
            text[place : place + draw.randrange(2)] = draw.choice(CHARACTERS)
        whole = "".join(text)
        try:
            # It takes padding that nothing needs, and we do not.
            expected = base64.b64decode(whole if len(whole) % 4 == 0 else "=", validate=True)
        except (binascii.Error, ValueError):
            refused += 1
            with pytest.raises(ValueError, match="not base64"):
                decode_base64(whole)
        else:
            assert decode_base64(whole) == expected, whole
    assert 1000 < refused < 19_000


@pytest.mark.parametrize("place", range(8))
def test_foreign_character_is_refused_at_every_place(place: int) -> None:
    for character in sorted(set(map(chr, range(256))) - set(ALPHABET)):
        text = "QUJDREVG"[:place] + character + "QUJDREVG"[place + 1 :]
        if text == "QUJDREV=":
            assert decode_base64(text) == b"ABCDE"
        else:
            with pytest.raises(ValueError, match="not base64"):
                decode_base64(text)


@pytest.mark.parametrize("value", [None, 1, bytearray(b"x"), "text"])
def test_what_is_no_bytes_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        encode_base64(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, 1, b"QUJD", ["QUJD"]])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        decode_base64(value)  # type: ignore[arg-type]
