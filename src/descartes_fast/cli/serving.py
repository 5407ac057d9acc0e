"""The command that runs a server: serve."""

from __future__ import annotations

import gc
from argparse import SUPPRESS, Namespace
from dataclasses import fields
from typing import TYPE_CHECKING

from ..config import ZmqServerConfig
from . import exits, screen
from .arguments import count, seconds
from .session import config_path

if TYPE_CHECKING:
    from .arguments import Commands
    from .parser import Parser

__all__ = ["add_commands"]

_ALLOCATIONS = 20_000
"""Objects more than there were at the last look, for the youngest; a fiftieth of a second's at full
speed, some megabytes."""


def add_commands(commands: Commands, shared: Parser) -> None:
    """Add the group's command."""
    serve = commands.add_parser(
        "serve",
        help="run a server",
        description="Run a server until SIGTERM or Ctrl-C. Settings that are not given come "
        "from the environment (DESCARTES_FAST_SERVE_ENDPOINT and so on; what is set for "
        "clients does not count), then from the configuration file's [zmq_server] and "
        "[backends.NAME], then from the defaults.",
    )
    serve.add_argument("--config", metavar="FILE", default=SUPPRESS, help="configuration file")
    serve.add_argument("--endpoint", metavar="URL", default=SUPPRESS, help="where commands arrive")
    serve.add_argument("--pub-endpoint", metavar="URL", help="where status and logs are published")
    serve.add_argument("--advertise-pub", metavar="URL", help="what clients are told of it")
    serve.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="allow an endpoint that is not loopback or ipc: anybody who reaches it can run agents",
    )
    serve.add_argument("--server-id", metavar="NAME", help="the server's name")
    serve.add_argument("--max-agents", metavar="N", type=count, help="most agents at one time")
    serve.add_argument(
        "--state-dir", metavar="DIR", help="where the journal and the agents' output are kept"
    )
    serve.add_argument(
        "--keep-agents",
        action="store_true",
        default=None,
        help="let the agents run on when this server stops; the next one has them back",
    )
    serve.add_argument(
        "--no-journal",
        action="store_false",
        default=None,
        dest="journal",
        help="keep nothing for a next server: agents end with this one, however it ends",
    )
    serve.add_argument("--stop-grace-secs", metavar="SECS", type=seconds, help="before SIGKILL")
    serve.add_argument("--json", action="store_true", help="print JSON")
    serve.set_defaults(handler=_serve, serves=True)


async def _serve(arguments: Namespace) -> int:
    from ..server import ZmqAgentServer

    given = {entry.name: getattr(arguments, entry.name, None) for entry in fields(ZmqServerConfig)}
    config = ZmqServerConfig.load(config_path(arguments), **given)
    server = ZmqAgentServer(config)

    def announce() -> None:
        _spare_the_collector()
        _announce(server.endpoint, server.pub_endpoint, server.server_id, as_json=arguments.json)

    await server.serve_forever(on_started=announce)
    screen.leave_line()
    return exits.OK


def _spare_the_collector() -> None:
    """Have garbage be looked for less often: this process is the server's alone.

    What is there by now stays, and what a server makes is nearly all freed without the collector;
    looking through a thousand agents and their replies for it took a tenth of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 20, 50)


def _announce(endpoint: str, pub_endpoint: str, server_id: str, *, as_json: bool) -> None:
    """Say that the server is ready, and where."""
    facts = {"endpoint": endpoint, "pub_endpoint": pub_endpoint, "server_id": server_id}
    if as_json:
        screen.json_line(facts)
    elif screen.is_terminal():
        screen.line(f"server {server_id} is ready")
        screen.line(f"  commands         {endpoint}")
        screen.line(f"  status and logs  {pub_endpoint}")
    else:
        for name, value in facts.items():
            screen.line(name, value)
