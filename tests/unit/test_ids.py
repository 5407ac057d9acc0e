"""Ids by the core: the same as the uuid module's, as that is what everybody else uses."""

from __future__ import annotations

from typing import Any
from uuid import RFC_4122, UUID, uuid4

import pytest

from descartes_fast._core.ids import id_of, id_text, new_id


def test_new_ids_are_random_ones_of_version_4() -> None:
    made = {new_id() for _ in range(1000)}
    assert len(made) == 1000
    assert {(one.version, one.variant) for one in made} == {(4, RFC_4122)}
    for bit in set(range(128)) - {62, 63, 76, 77, 78, 79}:  # those say the version and the variant
        assert 300 < sum(one.int >> bit & 1 for one in made) < 700


def test_text_of_an_id_is_what_uuid_writes_and_reads() -> None:
    for one in (UUID(int=0), UUID(int=1), UUID(int=2**128 - 1), *(uuid4() for _ in range(20))):
        assert id_text(one) == str(one)
        assert id_of(str(one)) == one
        assert id_of(str(one).upper()) == one
        assert id_of(one.hex) == id_of(one.urn) == id_of(f"{{{one}}}") == one


@pytest.mark.parametrize(
    "text", ["", "x", "0" * 36, "0" * 31, "é" * 36, "é" * 18, "\ud800", "0" * 32 + "\0", "-" * 36]
)
def test_text_that_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - one of its kinds says what no UTF-8 has
        id_of(text)


@pytest.mark.parametrize("wrong", [None, 5, "6f1f5f6e-9f3c-4a53-8f0e-2f3f7f0f9a10", b"0" * 16])
def test_what_is_no_id_has_no_text(wrong: Any) -> None:
    with pytest.raises(TypeError, match="an id is a UUID, not"):
        id_text(wrong)


@pytest.mark.parametrize("number", [-1, 2**128, "x", None])
def test_id_without_its_number_has_no_text(number: Any) -> None:
    broken = UUID.__new__(UUID)
    if number is not None:
        object.__setattr__(broken, "int", number)
    with pytest.raises(ValueError, match="without its number"):
        id_text(broken)


def test_id_of_a_subclass_is_one() -> None:
    class Mine(UUID):
        __slots__ = ()

    assert id_text(Mine(int=5)) == str(UUID(int=5))
