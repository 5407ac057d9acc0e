"""How many descriptors a process has open: the same number by either way."""

from __future__ import annotations

import os

import pytest

from descartes_fast.server.keeper import system
from descartes_fast.server.keeper.system import open_descriptors


@pytest.mark.parametrize("is_told", [True, False])
def test_each_descriptor_more_is_one_more(monkeypatch: pytest.MonkeyPatch, is_told: bool) -> None:
    if not is_told:
        monkeypatch.setattr(system, "_counts_descriptors", lambda: False)
    before = open_descriptors()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    assert open_descriptors() == before + 20
    for fd in opened:
        os.close(fd)
    assert open_descriptors() == before
