"""Commands that act on agents: pause, resume, stop, kill, signal, write, wait."""

from __future__ import annotations

import argparse
import asyncio
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from .._core import BatchAgentResult, ControlCommandType, to_builtins
from ..errors import UsageError, from_wire
from . import exits, screen
from .arguments import seconds
from .session import connected, find, find_all

if TYPE_CHECKING:
    from .arguments import Commands
    from .parser import Parser

__all__ = ["add_commands"]


def add_commands(commands: Commands, shared: Parser) -> None:
    """Add the group's commands."""
    pause = _add(commands, shared, "pause", "stop agents where they are (SIGSTOP)", _pause)
    pause.add_argument(
        "--cooperative", action="store_true", help="ask the agent to pause instead of freezing it"
    )
    _add(commands, shared, "resume", "let paused agents go on", _resume)
    stop = _add(commands, shared, "stop", "ask agents to end; kill them after a grace", _stop)
    stop.add_argument(
        "--grace", type=seconds, metavar="SECS", help="time to end before SIGKILL (5)"
    )
    _add(commands, shared, "kill", "end agents and all their processes at once", _kill)

    signal = commands.add_parser("signal", parents=[shared], help="send a signal to agents")
    signal.add_argument("signal", metavar="SIGNAL", help="SIGINT, INT, or 2")
    signal.add_argument("agents", metavar="ID", nargs="+", help=_ID_HELP)
    _add_json(signal)
    signal.set_defaults(handler=_signal)

    write = commands.add_parser("write", parents=[shared], help="write to an agent's stdin")
    write.add_argument("agent", metavar="ID", help=_ID_HELP)
    write.add_argument("text", metavar="TEXT", help="a line; - passes our own stdin on")
    write.add_argument("--no-newline", "-n", action="store_true", help="no newline after TEXT")
    write.add_argument("--close", action="store_true", help="close the agent's stdin after it")
    _add_json(write)
    write.set_defaults(handler=_write)

    wait = commands.add_parser("wait", parents=[shared], help="wait until agents have ended")
    wait.add_argument("agents", metavar="ID", nargs="+", help=_ID_HELP)
    wait.add_argument("--for", type=seconds, dest="limit", metavar="SECS", help="at most this long")
    _add_json(wait)
    wait.set_defaults(handler=_wait)


_WRITE_BYTES = 1024 * 1024  # what a server holds for an agent that is not reading
_ID_HELP = "an agent's id, or as much of its beginning as is unique"


def _add(commands: Commands, shared: Parser, name: str, words: str, handler: Any) -> Parser:
    parser = commands.add_parser(name, parents=[shared], help=words, description=words)
    parser.add_argument("agents", metavar="ID", nargs="+", help=_ID_HELP)
    _add_json(parser)
    parser.set_defaults(handler=handler)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


async def _pause(arguments: Namespace) -> int:
    mode = "cooperative" if arguments.cooperative else "forced"
    return await _control(arguments, ControlCommandType.PAUSE, {"mode": mode})


async def _resume(arguments: Namespace) -> int:
    return await _control(arguments, ControlCommandType.RESUME)


async def _stop(arguments: Namespace) -> int:
    payload = None if arguments.grace is None else {"grace_secs": arguments.grace}
    return await _control(arguments, ControlCommandType.STOP, payload)


async def _kill(arguments: Namespace) -> int:
    return await _control(arguments, ControlCommandType.KILL)


async def _signal(arguments: Namespace) -> int:
    text: str = arguments.signal
    payload = {"signal": int(text) if text.isdecimal() else text.upper()}
    return await _control(arguments, ControlCommandType.SIGNAL, payload)


async def _control(
    arguments: Namespace, command: ControlCommandType, payload: dict[str, Any] | None = None
) -> int:
    """Give one command to all the agents named, and report each that refused."""
    async with connected(arguments) as client:
        agent_ids = await find_all(client, arguments.agents)
        answer = await client.batch_control(agent_ids, command, payload)
    if arguments.json:
        screen.json_document(to_builtins(answer))
    for result in answer.results:
        if not result.success:
            screen.complain(f"{result.agent_id}: {exits.words_of(from_wire(result.error))}")
        elif not arguments.json:
            screen.line(screen.short(result.agent_id), *_new_status(command, result))
    return exits.OK if answer.success else exits.FAILED


def _new_status(command: ControlCommandType, result: BatchAgentResult) -> list[str]:
    """Return the status that a command has brought about; the end comes later than the reply."""
    brings = (ControlCommandType.PAUSE, ControlCommandType.RESUME)
    return [result.status.value] if command in brings and result.status else []


async def _write(arguments: Namespace) -> int:
    async with connected(arguments) as client:
        agent_id = await find(client, arguments.agent)
        data = await asyncio.to_thread(_data_of, arguments)
        payload = {"data": _sendable(data), "close": arguments.close}
        answer = await client.control_agent(agent_id, ControlCommandType.WRITE_STDIN, payload)
    if arguments.json:
        screen.json_document(to_builtins(answer))
    return exits.OK


def _data_of(arguments: Namespace) -> bytes:
    if arguments.text == "-":
        data = sys.stdin.buffer.read(_WRITE_BYTES + 1)
        if len(data) > _WRITE_BYTES:
            raise UsageError(
                f"more than {_WRITE_BYTES} bytes on stdin; use attach, which has no limit"
            )
        return data
    text: str = arguments.text if arguments.no_newline else arguments.text + "\n"
    # As it was given: bytes that are not UTF-8 came as surrogates.
    return text.encode("utf-8", "surrogateescape")


def _sendable(data: bytes) -> str | list[int]:
    """Return bytes as a payload holds them: text where they are, else one by one."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


async def _wait(arguments: Namespace) -> int:
    async with connected(arguments) as client:
        agent_ids = await find_all(client, arguments.agents)
        ends = await asyncio.gather(
            *(client.wait_agent(agent_id, arguments.limit) for agent_id in agent_ids)
        )
    if arguments.json:
        screen.json_document([screen.end_form(end) for end in ends])
    else:
        rows = [
            (screen.short(end.id), end.status.value, exits.outcome(end.exit_code, end.signal))
            for end in ends
        ]
        screen.table(("ID", "STATUS", "EXIT"), rows)
    codes = [exits.of_agent(end.exit_code, end.signal) for end in ends]
    return codes[0] if len(codes) == 1 else exits.FAILED if any(codes) else exits.OK
