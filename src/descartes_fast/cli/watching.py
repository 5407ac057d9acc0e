"""The command that follows status updates: watch."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._core import StatusUpdate, StatusUpdateType, to_builtins
from . import exits, screen
from .session import connected, find

if TYPE_CHECKING:
    from .arguments import Commands
    from .parser import Parser

__all__ = ["add_commands"]


def add_commands(commands: Commands, shared: Parser) -> None:
    """Add the group's command."""
    watch = commands.add_parser(
        "watch",
        parents=[shared],
        help="follow the status of agents",
        description="Follow the status of all agents, or of one until it has ended. What is "
        "the case comes first, then each change as it happens. In a pipe: the columns time, "
        "id, status, what happened, with tabs between them.",
    )
    watch.add_argument("agent", metavar="ID", nargs="?", help="an agent's id, or its beginning")
    watch.add_argument("--heartbeats", action="store_true", help="also the server's signs of life")
    watch.add_argument("--output", action="store_true", help="also news of output")
    watch.add_argument("--json", action="store_true", help="print JSON, a line for each update")
    watch.set_defaults(handler=_watch)


async def _watch(arguments: Namespace) -> int:
    hidden = set()
    if not arguments.heartbeats:
        hidden.add(StatusUpdateType.HEARTBEAT)
    if not arguments.output:
        hidden.add(StatusUpdateType.OUTPUT_AVAILABLE)
    async with connected(arguments) as client:
        agent_id = await find(client, arguments.agent) if arguments.agent else None
        async with await client.subscribe_status_updates(agent_id) as updates:
            async for update in updates:
                if update.update_type not in hidden:
                    _show(update, as_json=arguments.json)
                if agent_id is not None and update.status is not None and update.status.is_terminal:
                    break
    return exits.OK


def _show(update: StatusUpdate, *, as_json: bool) -> None:
    if as_json:
        screen.json_line(to_builtins(update))
        return
    data = update.data if isinstance(update.data, dict) else {}
    status = update.status.value if update.status else update.update_type.value
    if screen.is_terminal():
        time = f"{update.timestamp.astimezone():%H:%M:%S}"
        words = _news(update, data)
        screen.line(f"{time}  {screen.short(update.agent_id)}  {status:<17} {words}".rstrip())
    else:
        words = " ".join(filter(None, (update.message, _facts(data))))
        screen.line(update.timestamp.isoformat(), str(update.agent_id), status, words)


def _news(update: StatusUpdate, data: Mapping[str, Any]) -> str:
    """Return what an update says to a person: of an end how it came, else what it holds."""
    if update.status is None or not update.status.is_terminal:
        return " ".join(filter(None, (update.message, _facts(data))))
    exit_code, signal = data.get("exit_code"), data.get("signal")
    if exit_code is None and signal is None:
        return update.message or ""
    return exits.outcome(exit_code, signal)


def _facts(data: Mapping[str, Any]) -> str:
    return " ".join(
        f"{name}={value}"
        for name, value in data.items()
        if name not in ("seq", "snapshot") and value is not None
    )
