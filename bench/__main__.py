"""``python -m bench NAME``: runs one of the benchmarks and prints its table."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = {
    "codec": "encoding and decoding beside other libraries; --check: the targets",
    "compare": "two builds by their ratios: --base JSON... --head JSON...",
}


def main() -> int:
    """Run the benchmark that the command line names."""
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        for name, words in BENCHMARKS.items():
            print(f"python -m bench {name:<8} {words}", file=sys.stderr)
        return 2
    module = importlib.import_module(f".{sys.argv[1]}", __package__)
    status: int = module.main(sys.argv[2:])
    return status


if __name__ == "__main__":
    sys.exit(main())
