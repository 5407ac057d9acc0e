"""The command about a state directory, with or without a server: state."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from argparse import Namespace
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from .. import config as configuration
from . import exits, screen
from .arguments import seconds
from .session import config_path

if TYPE_CHECKING:
    from ..server.state_view import AgentView, StateView
    from .arguments import Commands
    from .parser import Parser

__all__ = ["add_commands"]

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def add_commands(commands: Commands, shared: Parser) -> None:
    """Add the group's command."""
    state = commands.add_parser(
        "state",
        help="show what a state directory holds, with or without a server; prune it",
        description="show (the default): the agents in the journal, what is kept, and whether a "
        "server and a keeper run; nothing is changed. prune: forget ended agents and their "
        "output, where no server does it. stop: end the agents that a server left behind which "
        "does not come back.",
    )
    state.add_argument(
        "action", nargs="?", choices=["show", "prune", "stop"], default="show", help="what to do"
    )
    state.add_argument("--config", metavar="FILE", help="the server's configuration file")
    state.add_argument("--state-dir", metavar="DIR", help="the state directory")
    state.add_argument(
        "--older-than",
        metavar="AGE",
        type=age,
        default=0.0,
        help="prune: only agents that ended that long ago (90s, 15m, 12h, 7d)",
    )
    state.add_argument(
        "--grace-secs", metavar="SECS", type=seconds, help="stop: before SIGKILL (the server's)"
    )
    state.add_argument("--json", action="store_true", help="print JSON")
    state.set_defaults(handler=_state)


def age(text: str) -> float:
    """Read a length of time: a number, and ``s``, ``m``, ``h`` or ``d`` behind it."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if found is None:
        raise ValueError
    return float(found[1]) * _UNITS[found[2] or "s"]


async def _state(arguments: Namespace) -> int:
    config = configuration.ZmqServerConfig.load(
        config_path(arguments),
        state_dir=arguments.state_dir,
        stop_grace_secs=arguments.grace_secs,
    )
    if arguments.action == "prune":
        return _prune(config, arguments.older_than, as_json=arguments.json)
    if arguments.action == "stop":
        return await _stop(config, as_json=arguments.json)
    return _show(config.state_path(), as_json=arguments.json)


def _show(path: Path, *, as_json: bool) -> int:
    from ..server.state_view import read_state

    view = read_state(path)
    if as_json:
        screen.json_document(_form(view))
        return exits.OK
    counts = Counter(agent.status.value for agent in view.agents)
    facts = {
        "directory": str(view.path),
        "server": _process(view.server_pid),
        "keeper": _process(view.keeper_pid),
        "agents": ", ".join(f"{count} {status}" for status, count in counts.items()) or "none",
        "output": _size(view.output_bytes),
        "journal": f"{_size(view.journal_bytes)}, version {view.version}",
        "replies": f"{view.replies}, {_size(view.reply_bytes)}",
    }
    screen.facts(facts)
    columns = ("ID", "NAME", "STATUS", "PID", "STARTED", "STDOUT", "STDERR", "TASK")
    if view.agents:
        screen.table(columns, map(_row, view.agents))
    return exits.OK


def _row(agent: AgentView) -> tuple[str, ...]:
    status = agent.status.value
    if agent.status.is_terminal:
        if agent.status.value != "completed":
            status += f" ({exits.outcome(agent.exit_code, agent.signal)})"
    elif not agent.alive:
        status += " (gone)"
    return (
        screen.short(agent.id),
        agent.name,
        status,
        str(agent.pid or "-"),
        screen.age(_moment(agent.started_at_ns)),
        _size(agent.stdout_bytes),
        _size(agent.stderr_bytes),
        agent.task,
    )


def _form(view: StateView) -> dict[str, Any]:
    form = dataclasses.asdict(view) | {"path": str(view.path)}
    for agent in form["agents"]:
        agent["id"] = str(agent["id"])
        agent["status"] = agent["status"].value
        for name in ("started_at", "ended_at"):
            at_ns = agent.pop(f"{name}_ns")
            agent[name] = None if at_ns is None else _moment(at_ns).isoformat()
    return form


def _prune(config: configuration.ZmqServerConfig, older_than_secs: float, *, as_json: bool) -> int:
    from ..server.state_view import prune_state

    gone = prune_state(config.state_path(), older_than_secs, config.replay_secs)
    if as_json:
        screen.json_document({"pruned": [str(agent_id) for agent_id in gone]})
    else:
        screen.line(f"forgot {_agents(len(gone))}")
    return exits.OK


async def _stop(config: configuration.ZmqServerConfig, *, as_json: bool) -> int:
    """Take the agents over as a server does that ends at once, and ends them with it."""
    from ..server import ZmqAgentServer
    from ..server.state_view import journal_instance, read_state, refuse_beside_server
    from ..server.strangers import end_strangers

    path = config.state_path()
    strangers: list[UUID] = []
    if (path / "lock").is_file():  # a server has used it
        refuse_beside_server(path)
        strangers = await end_strangers(path, config.stop_grace_secs)
    if strangers and journal_instance(path) is None:
        return _say_stopped([], strangers, as_json=as_json)
    read_state(path)  # a directory without a journal is not made one
    with tempfile.TemporaryDirectory(prefix="dfast-") as folder:
        ending = dataclasses.replace(
            config,
            endpoint=f"ipc://{folder}/commands",
            pub_endpoint=f"ipc://{folder}/events",
            keep_agents=False,
            journal=True,
        )
        async with ZmqAgentServer(ending):
            alive = [agent for agent in read_state(path).agents if not agent.status.is_terminal]
    ended = {agent.id for agent in alive}
    ends = [agent for agent in read_state(path).agents if agent.id in ended]
    return _say_stopped(ends, strangers, as_json=as_json)


def _say_stopped(ends: list[AgentView], strangers: list[UUID], *, as_json: bool) -> int:
    """Tell which agents were ended; how ``strangers`` did, which the journal lacks, is unknown."""
    if as_json:
        names = ("id", "status", "exit_code", "signal")
        forms = [{name: getattr(agent, name) for name in names} for agent in ends]
        forms += [dict.fromkeys(names) | {"id": agent_id} for agent_id in strangers]
        screen.json_document({"stopped": [form | {"id": str(form["id"])} for form in forms]})
    else:
        screen.line(f"ended {_agents(len(ends) + len(strangers))}")
    return exits.OK


def _agents(count: int) -> str:
    return f"{count} agent" if count == 1 else f"{count} agents"


def _moment(at_ns: int) -> datetime:
    return datetime.fromtimestamp(at_ns / 1e9, UTC)


def _process(pid: int | None) -> str:
    if pid is None:
        return "not running"
    return f"process {pid}" if pid else "running"


def _size(count: int) -> str:
    """Return a number of bytes as people see it; elsewhere than on a terminal, all its digits."""
    if not screen.is_terminal():
        return str(count)
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
