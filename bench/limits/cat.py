"""cat through two pipes and a file: ``cat FILE | cat | cat > COPY``, as many bytes in all."""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..driver import Round, drive


@contextmanager
def cats() -> Iterator[Round]:
    with tempfile.TemporaryDirectory(prefix="dfast-bench-") as folder:
        copy = Path(folder) / "copy"

        def one_round(*, path: str, agents: int) -> dict[str, Any]:
            used = _children_secs()
            begun = time.perf_counter()
            with copy.open("wb") as target:
                first = subprocess.Popen(["cat", *[path] * agents], stdout=subprocess.PIPE)
                second = subprocess.Popen(
                    ["cat"], stdin=first.stdout, stdout=subprocess.PIPE
                )  # fmt: skip
                third = subprocess.Popen(["cat"], stdin=second.stdout, stdout=target)
                for end in (first.stdout, second.stdout):
                    assert end is not None
                    end.close()
                for process in (first, second, third):
                    process.wait()
            secs = time.perf_counter() - begun
            size = copy.stat().st_size
            copy.unlink()
            # They are gone before anybody else could look at what they used.
            used = _children_secs() - used
            return {"rate": size / secs / 1e6, "done": size, "cpu_secs": used}

        yield one_round


def _children_secs() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    drive(cats)
