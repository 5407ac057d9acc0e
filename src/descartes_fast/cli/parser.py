"""The argument parser: the commands in their groups and the options all of them share."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn

from . import (
    completion,
    controlling,
    demo,
    exits,
    inspecting,
    output,
    serving,
    spawning,
    state,
    systemd,
    watching,
)
from .session import add_connection_options

__all__ = ["Parser", "build_parser"]

_GROUPS = (
    serving,
    spawning,
    inspecting,
    controlling,
    output,
    watching,
    state,
    systemd,
    demo,
    completion,
)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, and a short one."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            near = difflib.get_close_matches(value, action.choices, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise argparse.ArgumentError(None, f"there is no command {value!r}{hint}")
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        self.exit(exits.USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    """Prints the version; what knows it takes a tenth of a command's start to import."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        print(version("descartes-fast"))
        parser.exit()


def build_parser() -> Parser:
    """Return the parser of the whole command line.

    A parsed command has its coroutine function in ``handler``.
    """
    parser = Parser(
        prog="descartes-fast",
        description="Run swarms of AI agents on many machines: spawn, watch and control them.",
        epilog=exits.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="show program's version number and exit"
    )
    parser.set_defaults(parser=parser)
    add_connection_options(parser, default=None)
    shared = Parser(add_help=False, allow_abbrev=False)
    add_connection_options(shared, default=argparse.SUPPRESS)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in _GROUPS:
        group.add_commands(commands, shared)
    return parser
