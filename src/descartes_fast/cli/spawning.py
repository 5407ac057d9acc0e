"""The command that starts agents: spawn."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from .._core import MAX_MESSAGE_SIZE, AgentConfig, AgentInfo, replace, to_builtins
from ..client import ZmqClient
from ..errors import AgentError, UsageError
from ..runner import AgentExit
from ..spawning import spawn_all
from . import exits, screen
from .arguments import count, pair
from .progress import progress
from .session import connected
from .streams import follow

if TYPE_CHECKING:
    from .arguments import Commands
    from .parser import Parser

__all__ = ["add_commands"]


def add_commands(commands: Commands, shared: Parser) -> None:
    """Add the group's command."""
    spawn = commands.add_parser(
        "spawn",
        parents=[shared],
        help="start an agent",
        description="Start an agent with a task and print its id.",
    )
    spawn.add_argument("task", metavar="TASK", help="what it is to do; - reads our stdin")
    spawn.add_argument("--backend", metavar="NAME", required=True, help="claude, codex, ...")
    spawn.add_argument("--name", metavar="NAME", help="the agent's name (made up if not given)")
    spawn.add_argument("--model", metavar="MODEL", help="the model it is to use")
    spawn.add_argument("--tool-level", metavar="LEVEL", help="which tools it may use")
    spawn.add_argument("--system-prompt", metavar="TEXT", help="its system prompt")
    spawn.add_argument("--context", metavar="TEXT", help="what it should know beside the task")
    spawn.add_argument("--context-file", metavar="FILE", help="the same from a file")
    spawn.add_argument(
        "--env",
        metavar="NAME=VALUE",
        type=pair,
        action="append",
        default=[],
        help="set a variable the backend allows; may be repeated",
    )
    spawn.add_argument(
        "--meta",
        metavar="NAME=VALUE",
        type=pair,
        action="append",
        default=[],
        help="keep a note with the agent; may be repeated",
    )
    spawn.add_argument(
        "--count", metavar="N", type=count, default=1, help="start N, named NAME-1 to NAME-N"
    )
    until = spawn.add_mutually_exclusive_group()
    until.add_argument("--wait", action="store_true", help="wait for the end; exit as the agent")
    until.add_argument(
        "--follow", action="store_true", help="print the output instead of the id, then as --wait"
    )
    spawn.add_argument("--json", action="store_true", help="print JSON, a line for each fact")
    spawn.set_defaults(handler=_spawn)


async def _spawn(arguments: Namespace) -> int:
    if arguments.count > 1 and arguments.follow:
        raise UsageError("--follow is for one agent; use --wait, or watch")
    config = await asyncio.to_thread(_config_of, arguments)
    metadata = dict(arguments.meta) or None
    async with connected(arguments) as client:
        if arguments.count > 1:
            return await _spawn_many(client, config, metadata, arguments)
        info = await client.spawn_remote(config, metadata=metadata)
        return await _see_through(client, info, arguments)


def _config_of(arguments: Namespace) -> AgentConfig:
    context = arguments.context
    if arguments.context_file is not None:
        if context is not None:
            raise UsageError("--context and --context-file exclude each other")
        context = Path(arguments.context_file).read_text()
    return AgentConfig(
        name=arguments.name or f"{arguments.backend}-{uuid4().hex[:6]}",
        model_backend=arguments.backend,
        task=_task_on_stdin() if arguments.task == "-" else arguments.task,
        context=context,
        system_prompt=arguments.system_prompt,
        environment=dict(arguments.env),
        model=arguments.model,
        tool_level=arguments.tool_level,
    )


def _task_on_stdin() -> str:
    """Read a task, at most what fits into a message; the server says it if that is too much."""
    return sys.stdin.buffer.read(MAX_MESSAGE_SIZE).decode(errors="replace")


async def _see_through(client: ZmqClient, info: AgentInfo, arguments: Namespace) -> int:
    """Report one agent, and stay with it to its end if so asked."""
    if arguments.json:
        screen.json_line(to_builtins(info))
    elif not arguments.follow:
        screen.line(str(info.id))
    if not (arguments.follow or arguments.wait):
        return exits.OK
    with _telling_what_runs_on({info.id}):
        if arguments.follow:
            show = screen.show_json if arguments.json else screen.show_output
            async with await client.stream_agent_logs(info.id, from_offset=0) as messages:
                await follow(messages, show)
        end = await client.wait_agent(info.id)
    if arguments.json:
        screen.json_line(screen.end_form(end))
    return exits.of_agent(end.exit_code, end.signal)


@contextmanager
def _telling_what_runs_on(agents: set[UUID]) -> Iterator[None]:
    """Where a block is left early (an error, Ctrl-C), tell which agents do not end with it."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError):  # Ctrl-C
            screen.leave_line()
        if len(agents) == 1:
            agent_id = screen.short(*agents)
            screen.complain(f"agent {agent_id} runs on; to stop it: descartes-fast stop {agent_id}")
        elif agents:
            screen.complain(f"{len(agents)} agents run on; see them with: descartes-fast ps")
        raise


async def _spawn_many(
    client: ZmqClient, config: AgentConfig, metadata: dict[str, str] | None, arguments: Namespace
) -> int:
    configs = [
        replace(config, name=f"{config.name}-{number}") for number in range(1, arguments.count + 1)
    ]
    with progress("starting", len(configs)) as advanced:
        answers = await spawn_all(
            lambda one: client.spawn_remote(one, metadata=metadata),
            configs,
            max_in_flight=64,
            progress=advanced,
        )
    agents = [answer for answer in answers if isinstance(answer, AgentInfo)]
    for info in agents:
        if arguments.json:
            screen.json_line(to_builtins(info))
        else:
            screen.line(str(info.id))
    refusals = [answer for answer in answers if isinstance(answer, AgentError)]
    if refusals:
        more = f" ({len(refusals)} of {len(configs)} refused)"
        screen.complain(exits.words_of(refusals[0]) + more)
    failed = bool(refusals)
    if arguments.wait:
        ends = await _wait_for_all(client, agents, as_json=arguments.json)
        losses = [end for end in ends if exits.of_agent(end.exit_code, end.signal) != exits.OK]
        if not arguments.json:  # there each end has been told
            for end in losses:
                screen.complain(f"agent {end.id}: {exits.outcome(end.exit_code, end.signal)}")
        failed = failed or bool(losses)
    return exits.FAILED if failed else exits.OK


async def _wait_for_all(
    client: ZmqClient, agents: list[AgentInfo], *, as_json: bool
) -> list[AgentExit]:
    """Wait for the end of agents, and return the ends as they came."""
    ends = []
    left = {info.id for info in agents}
    with _telling_what_runs_on(left), progress("running", len(agents)) as advanced:
        for waiting in asyncio.as_completed([client.wait_agent(info) for info in agents]):
            end = await waiting
            ends.append(end)
            left.discard(end.id)
            advanced(len(ends), len(agents))
            if as_json:
                screen.json_line(screen.end_form(end))
    return ends
