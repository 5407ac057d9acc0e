"""Commands that look: ps, status, health."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from .._core import AgentStatus, ControlCommandType, to_builtins
from . import exits, screen
from .arguments import count
from .session import connected, find

if TYPE_CHECKING:
    from .arguments import Commands
    from .parser import Parser

__all__ = ["add_commands"]


def add_commands(commands: Commands, shared: Parser) -> None:
    """Add the group's commands."""
    ps = commands.add_parser(
        "ps",
        parents=[shared],
        help="list agents",
        description="List agents, also those that have ended. In a pipe: no header, the "
        "columns id, name, status, backend, started, task, with tabs between them.",
    )
    ps.add_argument("--status", choices=[status.value for status in AgentStatus], help="only these")
    ps.add_argument("--active", action="store_true", help="only those that have not ended")
    ps.add_argument("--limit", type=count, metavar="N", help="at most N")
    ps.add_argument("-q", "--quiet", action="store_true", help="only whole ids")
    ps.add_argument("--json", action="store_true", help="print JSON")
    ps.set_defaults(handler=_ps)

    status = commands.add_parser("status", parents=[shared], help="tell all about one agent")
    status.add_argument("agent", metavar="ID", help="an agent's id, or its unique beginning")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(handler=_status)

    health = commands.add_parser(
        "health", parents=[shared], help="ask the server how it is; exits 1 if unhealthy"
    )
    health.add_argument("--json", action="store_true", help="print JSON")
    health.set_defaults(handler=_health)


async def _ps(arguments: Namespace) -> int:
    wanted = AgentStatus(arguments.status) if arguments.status else None
    limit = None if arguments.active else arguments.limit
    async with connected(arguments) as client:
        agents = await client.list_remote_agents(wanted, limit)
    if arguments.active:
        agents = [info for info in agents if not info.status.is_terminal][: arguments.limit]
    if arguments.json:
        screen.json_document([to_builtins(info) for info in agents])
    elif arguments.quiet:
        for info in agents:
            screen.line(str(info.id))
    else:
        rows = (
            (
                screen.short(info.id),
                info.name,
                info.status.value,
                info.model_backend,
                screen.age(info.started_at),
                info.task,
            )
            for info in agents
        )
        screen.table(("ID", "NAME", "STATUS", "BACKEND", "STARTED", "TASK"), rows)
    return exits.OK


async def _status(arguments: Namespace) -> int:
    async with connected(arguments) as client:
        agent_id = await find(client, arguments.agent)
        response = await client.control_agent(
            agent_id, ControlCommandType.GET_STATUS, {"info": True}
        )
    if arguments.json:
        screen.json_document(to_builtins(response))
        return exits.OK
    data = dict(response.data) if isinstance(response.data, dict) else {}
    info = data.pop("info", None) or {}
    known = {name: info[name] for name in ("name", "model_backend", "task") if name in info}
    facts = {"id": str(agent_id)} | known | data
    screen.facts({name: _shown(value) for name, value in facts.items()})
    return exits.OK


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " ".join(f"{name}={entry}" for name, entry in value.items()) or "-"
    return str(value)


async def _health(arguments: Namespace) -> int:
    async with connected(arguments) as client:
        health = await client.health_check()
    if arguments.json:
        screen.json_document(to_builtins(health))
    else:
        facts = {
            "healthy": "yes" if health.healthy else "no",
            "protocol": health.protocol_version,
            "uptime": "-" if health.uptime_secs is None else f"{health.uptime_secs}s",
            "active_agents": _shown(health.active_agents),
        } | dict(health.metadata or {})
        screen.facts(facts)
    return exits.OK if health.healthy else exits.FAILED
