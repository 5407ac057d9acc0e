"""A progress bar on stderr where a person looks at it and rich is installed, else nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .screen import has_rich

__all__ = ["progress"]


@contextmanager
def progress(words: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Show how far ``total`` things have come; yields what is to be called with (done, total)."""
    if not (sys.stderr.isatty() and has_rich()):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(words, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
