"""What processes take of the machine, from /proc: memory and processor time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["cpu_by_process", "cpu_secs", "memory_bytes"]


def memory_bytes(pids: Iterable[int]) -> int:
    """Return the resident set size (RSS).

    Not the proportional one (PSS), of which other Pythons that come and go change the share:
    only differences are looked at, and pages shared from the start cancel out of them.
    """
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total


def cpu_by_process(pid: int) -> dict[int, float]:
    """Return the processor time that a process and all below it have used so far."""
    found: dict[int, float] = {}
    left = [pid]
    while left:
        each = left.pop()
        try:
            found[each] = cpu_secs([each])
            for thread in Path(f"/proc/{each}/task").glob("[0-9]*/children"):
                left += [int(word) for word in thread.read_text().split()]
        except (OSError, ValueError):  # it has ended meanwhile
            continue
    return found


def cpu_secs(pids: Iterable[int]) -> float:
    """Return the processor time used so far, user and system.

    From the scheduler's account in nanoseconds of all threads, else from /proc/PID/stat in
    ticks of 10 ms, too coarse for an idle server.
    """
    total = 0.0
    for pid in pids:
        try:
            threads = Path(f"/proc/{pid}/task").glob("[0-9]*/schedstat")
            total += sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
        except (OSError, ValueError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total
