"""The command that prints a unit file for systemd: systemd-unit."""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from . import exits
from .session import config_path

if TYPE_CHECKING:
    from .arguments import Commands
    from .parser import Parser

__all__ = ["add_commands", "unit"]

_USER_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,30}\$?")
_USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def add_commands(commands: Commands, shared: Parser) -> None:
    """Add the group's command."""
    systemd = commands.add_parser(
        "systemd-unit",
        help="print a unit file for systemd",
        description="Print a unit in which a restart of the server, or the death of one agent, "
        "touches neither keeper nor agents. For yourself: descartes-fast systemd-unit > "
        "~/.config/systemd/user/descartes-fast.service, then systemctl --user enable --now "
        "descartes-fast, and loginctl enable-linger to have it without a login. For the "
        "machine: descartes-fast systemd-unit --user NAME > "
        "/etc/systemd/system/descartes-fast.service.",
    )
    systemd.add_argument(
        "--user", metavar="NAME", help="print a unit of the machine that runs as this user"
    )
    systemd.add_argument("--config", metavar="FILE", help="the server's configuration file")
    systemd.set_defaults(handler=_systemd_unit)


async def _systemd_unit(arguments: Namespace) -> int:
    print(unit(user=arguments.user, config=config_path(arguments)), end="")
    return exits.OK


def unit(*, user: str | None = None, config: Path | None = None) -> str:
    """Return the unit's text: of the one who asks, or of the machine for ``user``.

    Raises ``UsageError`` for a name that no user can have.
    """
    words = [*_program(), "serve", "--keep-agents"]
    if config is not None:
        words += ["--config", str(config.absolute())]
    after, settings, target = "", "", "default.target"
    command = " ".join(map(_quoted, words))
    if user is not None:
        if _USER_NAME.fullmatch(user) is None:
            raise UsageError(f"{user!r} is not a user's name")
        after, target = "After=network.target", "multi-user.target"
        settings = f"User={user}\nStateDirectory=descartes-fast\nStateDirectoryMode=0700"
        command += " --state-dir %S/descartes-fast"
    text = files(__package__).joinpath("descartes-fast.service").read_text(encoding="utf-8")
    for name, value in {
        "@COMMAND@": command,
        "@PATH@": _quoted(f"PATH={os.environ.get('PATH') or _USUAL_PATH}", dollar="$"),
        "@TARGET@": target,
    }.items():
        text = text.replace(name, value)
    for name, value in (("@AFTER@\n", after), ("@SETTINGS@\n", settings)):
        text = text.replace(name, value and value + "\n")
    return text


def _program() -> list[str]:
    """Return how this program is started, whatever the directory and the environment."""
    script = Path(sys.executable).parent / "descartes-fast"
    return [str(script)] if script.is_file() else [sys.executable, "-m", "descartes_fast"]


def _quoted(word: str, dollar: str = "$$") -> str:
    """Return a word of a command, or an assignment, as systemd reads it back."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    escaped = escaped.replace("%", "%%").replace("$", dollar)
    return escaped if re.fullmatch(r"[\w@%+=:,./-]+", escaped, re.ASCII) else f'"{escaped}"'
