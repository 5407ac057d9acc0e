"""Coverage-guided fuzzing of the codec: ``python tests/fuzz/fuzz_codec.py --seconds 60``.

Builds the core with gcc's edge instrumentation, mutates messages, keeps those that reach new
edges, and holds every answer against the independent codec of the wire tests. An input that
breaks something is written beside the corpus, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from special_build import build  # noqa: E402


def load(folder: Path) -> tuple[ctypes.CDLL, ModuleType]:
    """Build and load the counter of edges, then the instrumented package."""
    library = folder / "edges.so"
    subprocess.run(
        [os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", str(library),
         str(HERE / "edges.c")],
        check=True,
    )  # fmt: skip
    edges = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(build(folder, ["-fsanitize-coverage=trace-pc"])))
    import descartes_fast

    assert Path(descartes_fast.__file__).is_relative_to(folder), "another build was imported"
    return edges, descartes_fast


class Target:
    """One input through everything that reads bytes, held against the slow codec."""

    def __init__(self, package: Any) -> None:
        from descartes_fast._core.quick_status import asked_agent
        from wire import slow_codec

        self.asked_agent = asked_agent
        self.slow = slow_codec
        self.package = package

    def run(self, data: bytes) -> None:
        """Raise for any answer but the right one."""
        core = self.package
        core.peek_header(data)
        asked = self.asked_agent(data)
        try:
            message = core.deserialize_zmq_message(data)
        except core.ProtocolError as error:
            message = None
            if not 0 <= error.offset <= len(data):
                raise AssertionError(f"offset {error.offset} of {len(data)} bytes") from error
        if asked is not None and not asks_for_status(message, asked):
            raise AssertionError("answered as a get_status, which it is not")
        try:
            expected = self.slow.decode(data)
        except self.slow.Refused as refusal:
            if message is not None:
                raise AssertionError(f"accepted, but: {refusal}") from None
            return
        except self.slow.NotComparable:
            return
        if message is None:
            raise AssertionError("refused, but the other codec accepts it")
        form = core.to_builtins(message)
        if repr(form) != repr(expected):
            raise AssertionError(f"{form!r} is not {expected!r}")
        written = core.serialize_zmq_message(message)
        if written != self.slow.encode(expected):
            raise AssertionError(f"written as {written.hex()}")
        if core.deserialize_zmq_message(written) != message:
            raise AssertionError("not equal after writing and reading")
        repr(message)


def asks_for_status(message: Any, agent_id: bytes) -> bool:
    """Return whether a message is a plain ``get_status`` about this agent."""
    return (
        type(message).__name__ == "ControlCommand"
        and message.command_type == "get_status"
        and message.agent_id.bytes == agent_id
        and message.payload is None
    )


def fuzz(seconds: float, seed: int, corpus: Path | None) -> int:
    """Fuzz for so long and return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        edges, package = load(Path(folder))
        from wire.cases import DECODE_CASES, VECTORS
        from wire.mutations import mutations

        target = Target(package)
        kept: list[bytes] = []
        begin = [bytes.fromhex(line["hex"]) for line in VECTORS + DECODE_CASES]
        begin += [bytes.fromhex(line["hex_named"]) for line in VECTORS if "hex_named" in line]
        if corpus is not None and corpus.is_dir():
            begin += [path.read_bytes() for path in sorted(corpus.iterdir())]
        source = random.Random(seed)
        end = time.monotonic() + seconds
        runs = 0

        def attempt(data: bytes) -> bool:
            edges.edges_reset()
            try:
                target.run(data)
            except Exception:
                broken = (corpus or Path.cwd()) / f"broken-{abs(hash(data)):x}"
                broken.parent.mkdir(parents=True, exist_ok=True)
                broken.write_bytes(data)
                traceback.print_exc()
                print(f"the input is in {broken}: {data.hex()}", file=sys.stderr)
                raise SystemExit(1) from None
            return bool(edges.edges_new())

        for data in begin:
            if len(data) <= 4096 and attempt(data):
                kept.append(data)
        seeds = len(kept)
        while time.monotonic() < end:
            for data in mutations(kept, source.randrange(2**32), 500):
                runs += 1
                if len(data) <= 4096 and attempt(data):
                    kept.append(data)
                    if corpus is not None:
                        corpus.mkdir(parents=True, exist_ok=True)
                        (corpus / f"{len(kept):06}").write_bytes(data)
        print(
            f"{runs} runs, {edges.edges_total()} edges, {seeds} seeds, "
            f"{len(kept) - seeds} inputs found"
        )
    return 0


def main() -> int:
    """Read the command line and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    parser.add_argument("--corpus", type=Path, help="keep what was found here, and begin with it")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    return fuzz(options.seconds, options.seed, options.corpus)


if __name__ == "__main__":
    sys.exit(main())
