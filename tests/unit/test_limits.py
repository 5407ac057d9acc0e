"""The reserves: agents that were started since the last count are counted too."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from descartes_fast import ZmqServerConfig
from descartes_fast.server.limits import Reserves


def test_descriptors_of_agents_since_the_last_count_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (used + 30, used + 30))
    alive = 0
    now = 0.0
    reserves = Reserves(
        ZmqServerConfig(fd_reserve=10, disk_reserve_bytes=0),
        tmp_path,
        lambda: 0,
        lambda: alive,
        clock=lambda: now,
    )
    assert reserves.shortage() is None
    alive = 4  # 16 descriptors of about 20
    assert reserves.shortage() is None
    alive = 6
    assert "descriptors" in (reserves.shortage() or "")
    now = 1.0  # counted anew: they hold none here
    assert reserves.shortage() is None
