"""The command line: ``descartes-fast`` and ``python -m descartes_fast``."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from ..errors import DescartesError
from . import exits, screen
from .parser import build_parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, as ``descartes-fast --help`` lists them.

    ``argv`` are the arguments without the program's name; ``None`` means the process's own.
    """
    try:
        screen.prepare()
        arguments = build_parser().parse_args(argv)
        code = _run(arguments)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse: --help, --version, a wrong argument
        return stop.code if isinstance(stop.code, int) else exits.USAGE
    except KeyboardInterrupt:
        screen.leave_line()
        return exits.INTERRUPTED
    except BrokenPipeError:
        screen.silence_stdout()
        return exits.BROKEN_PIPE
    except (DescartesError, OSError) as error:
        screen.complain(exits.words_of(error))
        screen.silence_stdout()  # it may be what failed
        return exits.code_of(error)
    return code


def _run(arguments: Namespace) -> int:
    """Run a command's coroutine; Ctrl-C cancels it and comes out as ``KeyboardInterrupt``."""
    with asyncio.Runner(loop_factory=_loop_factory(arguments)) as runner:
        code: int = runner.run(arguments.handler(arguments))
        return code


def _loop_factory(arguments: Namespace) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop for a command that serves; a client's command is over before it pays."""
    if sys.platform == "win32":
        # ZeroMQ's descriptor is watched with add_reader, which the default loop lacks there.
        return asyncio.SelectorEventLoop
    if getattr(arguments, "serves", False):
        import uvloop

        return uvloop.new_event_loop
    return None
