"""os.posix_spawn in a bare loop, with the pipes and files that an agent of ours has.

Each child has a session of its own, a new directory, /dev/null as its stdin, and two pipes whose
contents go into two files in it, which are made with the first byte. What has ended is collected
in the same loop, as it has to be. It gets the environment from here, as the peers do it and as an
agent gets the usual names of it: with LANG in it even ``true`` reads the files of a locale, which
takes a tenth of its time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..driver import Round, drive, percentiles

_MOST_UNCOLLECTED = 64

Child = tuple[int, tuple[int, str], tuple[int, str]]


@contextmanager
def spawns() -> Iterator[Round]:
    program = shutil.which("true") or "true"
    environment = dict(os.environb)  # encoded, once for all
    null = os.open(os.devnull, os.O_RDWR)
    with tempfile.TemporaryDirectory(prefix="dfast-bench-") as folder:
        names = (f"{folder}/{number}" for number in range(10**9))

        def start() -> Child:
            directory = next(names)
            os.mkdir(directory, 0o700)
            pairs = []
            actions: list[tuple[int, int, int]] = [(os.POSIX_SPAWN_DUP2, null, 0)]
            theirs = []
            for number, name in ((1, "stdout"), (2, "stderr")):
                ours, other = os.pipe()
                actions.append((os.POSIX_SPAWN_DUP2, other, number))
                theirs.append(other)
                pairs.append((ours, f"{directory}/{name}"))
            pid = os.posix_spawn(
                program, [program, "x"], environment, file_actions=actions, setsid=True
            )
            for end in theirs:
                os.close(end)
            return pid, pairs[0], pairs[1]

        def one_round(*, count: int, in_flight: int) -> dict[str, Any]:
            del in_flight  # posix_spawn returns when it has happened
            running: deque[Child] = deque()
            took = []
            clock = time.perf_counter
            begun = clock()
            for _ in range(count):
                started = clock()
                running.append(start())
                took.append(clock() - started)
                if len(running) > _MOST_UNCOLLECTED:
                    _collect(running.popleft())
            secs = clock() - begun
            for child in running:
                _collect(child)
            return {"rate": count / secs, "done": len(took), **percentiles(took)}

        yield one_round


def _collect(child: Child) -> None:
    pid, *streams = child
    for pipe, path in streams:
        file = -1
        while data := os.read(pipe, 65536):
            if file < 0:
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(file, data)
        os.close(pipe)
        if file >= 0:
            os.close(file)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    drive(spawns)
