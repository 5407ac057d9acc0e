"""The entry point of the ``descartes-fast`` command.

A module outside the package, so that Ctrl-C while the package is still being imported
ends the command as quietly as later.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        from descartes_fast.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130
