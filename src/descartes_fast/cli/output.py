"""Commands about agents' output: logs, attach, query."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from .._core import LogStreamMessage, LogStreamType, ZmqOutputStream, to_builtins
from ..client import ZmqClient
from . import exits, screen
from .arguments import count, number
from .session import connected, find
from .streams import feed_stdin, follow, read_stream, tail_offset

if TYPE_CHECKING:
    from .arguments import Commands
    from .parser import Parser

__all__ = ["add_commands"]

_ID_HELP = "an agent's id, or as much of its beginning as is unique"


def add_commands(commands: Commands, shared: Parser) -> None:
    """Add the group's commands."""
    logs = commands.add_parser(
        "logs",
        parents=[shared],
        help="print an agent's output",
        description="Print what an agent has written to stdout, byte for byte. With -f go on "
        "until it has ended.",
    )
    logs.add_argument("agent", metavar="ID", help=_ID_HELP)
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the agent's end")
    logs.add_argument("--tail", type=number, metavar="N", help="begin with the last N lines")
    logs.add_argument("--stderr", action="store_true", help="its stderr instead of its stdout")
    logs.add_argument("--json", action="store_true", help="print JSON, a line for each piece")
    logs.set_defaults(handler=_logs)

    attach = commands.add_parser(
        "attach",
        parents=[shared],
        help="join an agent: our stdin is its stdin, its output is ours",
        description="Pass our stdin to an agent and its stdout and stderr to ours, until it has "
        "ended; exit as it did. The end of our stdin closes the agent's. Ctrl-C leaves; the "
        "agent runs on.",
    )
    attach.add_argument("agent", metavar="ID", help=_ID_HELP)
    attach.add_argument("--no-stdin", action="store_true", help="only look")
    attach.add_argument("--history", action="store_true", help="begin with the output so far")
    attach.add_argument("--json", action="store_true", help="print JSON, a line for each piece")
    attach.set_defaults(handler=_attach)

    query = commands.add_parser(
        "query", parents=[shared], help="search the lines of an agent's output"
    )
    query.add_argument("agent", metavar="ID", help=_ID_HELP)
    query.add_argument("--filter", metavar="REGEX", help="only lines in which this is found (RE2)")
    query.add_argument(
        "--stream",
        choices=[stream.value for stream in ZmqOutputStream],
        default="stdout",
        help="where to look (stdout)",
    )
    query.add_argument("--limit", type=count, metavar="N", help="at most N lines")
    query.add_argument("--offset", type=number, metavar="N", help="without the first N found")
    query.add_argument("--json", action="store_true", help="print JSON")
    query.set_defaults(handler=_query)


async def _logs(arguments: Namespace) -> int:
    stream = LogStreamType.STDERR if arguments.stderr else LogStreamType.STDOUT
    show = screen.show_json if arguments.json else _show_on_stdout
    async with connected(arguments) as client:
        agent_id = await find(client, arguments.agent)
        offset = 0
        if arguments.tail is not None:
            offset = await tail_offset(client, agent_id, stream, arguments.tail)
        if arguments.follow:
            async with await client.stream_agent_logs(agent_id, from_offset=offset) as messages:
                await follow(messages, show, only=stream)
        else:
            async for message in read_stream(client, agent_id, stream, offset):
                show(message)
    return exits.OK


def _show_on_stdout(message: LogStreamMessage) -> None:
    screen.write_stdout(message.data)


async def _attach(arguments: Namespace) -> int:
    show = screen.show_json if arguments.json else screen.show_output
    async with connected(arguments) as client:
        agent_id = await find(client, arguments.agent)
        start = 0 if arguments.history else None
        async with (
            # First the output: what the agent answers must not be missed.
            await client.stream_agent_logs(agent_id, from_offset=start) as messages,
            _feeding(client, agent_id, not arguments.no_stdin),
        ):
            await follow(messages, show)
        end = await client.wait_agent(agent_id)
    return exits.of_agent(end.exit_code, end.signal)


@asynccontextmanager
async def _feeding(client: ZmqClient, agent_id: UUID, wanted: bool) -> AsyncIterator[None]:
    """Pass our stdin on for the length of a block, if wanted."""
    if not wanted:
        yield
        return
    feeder = asyncio.create_task(feed_stdin(client, agent_id))
    try:
        yield
    finally:
        feeder.cancel()
        await asyncio.wait([feeder])


async def _query(arguments: Namespace) -> int:
    async with connected(arguments) as client:
        agent_id = await find(client, arguments.agent)
        found = await client.query_agent_output(
            agent_id,
            ZmqOutputStream(arguments.stream),
            filter=arguments.filter,
            limit=arguments.limit,
            offset=arguments.offset,
        )
    if arguments.json:
        screen.json_document(to_builtins(found))
        return exits.OK
    for text in found.lines:
        print(text)
    if found.has_more:
        after = (arguments.offset or 0) + len(found.lines)
        screen.complain(f"there are more lines: go on with --offset {after}")
    return exits.OK
