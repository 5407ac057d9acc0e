"""What goes to stdout and stderr: tables, lines, JSON and untouched bytes.

A terminal gets tables drawn by rich where rich is installed; a pipe gets text with
tabs between the columns and no header. Text that comes from agents or other clients
(names, tasks, messages) is stripped of control characters, so that it cannot drive
the terminal; output of agents is bytes and is passed on as it is.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from .._core import LogStreamMessage, LogStreamType, to_builtins
from ..runner import AgentExit

__all__ = [
    "age",
    "clean",
    "complain",
    "end_form",
    "facts",
    "has_rich",
    "is_terminal",
    "json_document",
    "json_line",
    "leave_line",
    "line",
    "prepare",
    "short",
    "show_json",
    "show_output",
    "silence_stdout",
    "table",
    "write_stderr",
    "write_stdout",
]

_GAP = 2  # between the columns of a table
_line_left = False

_STYLES = {
    "running": "green",
    "thinking": "green",
    "completed": "blue",
    "paused": "yellow",
    "initializing": "cyan",
    "failed": "red",
    "error": "red",
    "terminated": "magenta",
}


def prepare() -> None:
    """Have all three streams, also where they are closed; let output take whatever text comes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - until the end
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence_stdout() -> None:
    """Let the interpreter's last flush, of what cannot be written any more, go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def is_terminal() -> bool:
    """Tell whether a person looks at stdout."""
    return sys.stdout.isatty()


def has_rich() -> bool:
    """Tell whether rich is installed (the extra ``cli``)."""
    return importlib.util.find_spec("rich") is not None


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows: a table with a header on a terminal, tab-separated text elsewhere."""
    if is_terminal() and has_rich():
        _draw(columns, rows)
    else:
        for row in rows:
            line(*row)


def facts(pairs: Mapping[str, str]) -> None:
    """Print names and values, a line each: in two columns on a terminal, else with tabs."""
    if is_terminal():
        width = max(map(len, pairs), default=0)
        for name, value in pairs.items():
            print(f"{clean(name):<{width}}  {clean(value)}")
    else:
        for name, value in pairs.items():
            line(name, value)


def end_form(end: AgentExit) -> dict[str, Any]:
    """Return the end of an agent in the form of JSON."""
    return {
        "id": str(end.id),
        "status": end.status.value,
        "exit_code": end.exit_code,
        "signal": end.signal,
        "info": None if end.info is None else to_builtins(end.info),
    }


def line(*fields: str) -> None:
    """Print one line, its fields separated by tabs, at once."""
    print("\t".join(clean(field) for field in fields), flush=True)


def json_document(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


def json_line(value: Any) -> None:
    """Print a value as JSON on one line, at once: a stream of them is JSON Lines."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def complain(words: str) -> None:
    """Print one line about an error on stderr, if that takes it."""
    with contextlib.suppress(OSError):
        print(f"descartes-fast: {clean(words)}", file=sys.stderr, flush=True)


def leave_line() -> None:
    """Leave the line on which a terminal shows ``^C``, unless that has been done."""
    global _line_left
    with contextlib.suppress(OSError):
        if sys.stderr.isatty() and not _line_left:
            _line_left = True
            print(file=sys.stderr, flush=True)


def write_stdout(data: bytes) -> None:
    """Pass bytes to stdout as they are, at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_stderr(data: bytes) -> None:
    """Pass bytes to stderr as they are, at once."""
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def show_output(message: LogStreamMessage) -> None:
    """Pass a piece of an agent's output to where it would have gone without us."""
    write = write_stdout if message.stream_type is LogStreamType.STDOUT else write_stderr
    write(message.data)


def show_json(message: LogStreamMessage) -> None:
    """Print a piece of an agent's output as JSON on one line."""
    json_line(to_builtins(message))


def clean(text: str) -> str:
    """Return ``text`` on one line and without control characters."""
    return "".join(
        char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def short(agent_id: UUID) -> str:
    """Return an agent's id as people see it: eight digits on a terminal, all elsewhere."""
    return str(agent_id)[:8] if is_terminal() else str(agent_id)


def age(moment: datetime) -> str:
    """Return a time as people see it: how long ago on a terminal, ISO 8601 elsewhere."""
    if not is_terminal():
        return moment.isoformat()
    secs = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if secs >= size:
            return f"{secs // size}{unit} ago"
    return f"{secs}s ago"


def _draw(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Draw a table in which ids and states stay whole, since people copy them."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=_width())
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    room = console.width - _GAP * (len(columns) - 1)
    drawn = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for column, width in zip(columns, _fitted(columns, widths, room), strict=True):
        drawn.add_column(column, width=width, no_wrap=True, overflow="ellipsis")
    for row in cells:
        drawn.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console.print(drawn)


def _fitted(columns: Sequence[str], widths: Sequence[int], room: int) -> list[int]:
    """Return widths that fit into ``room``: the last column gives way first, then the widest."""
    fitted = list(widths)
    last = len(fitted) - 1
    for at in (last, max(range(last), key=fitted.__getitem__, default=last)):
        excess = max(0, sum(fitted) - room)
        fitted[at] = max(len(columns[at]), fitted[at] - excess)
    return fitted


def _width() -> int | None:
    """Return the width to draw at where the terminal does not tell: 80 is rich's own guess."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) > 0 else None
