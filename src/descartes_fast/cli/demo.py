"""The command that shows it all in ten seconds: demo."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from argparse import Namespace
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from .. import demo_agent
from .._core import AgentConfig, AgentInfo, ControlCommandType
from ..client import ZmqClient
from ..config import BackendConfig, ZmqRunnerConfig, ZmqServerConfig
from ..errors import ExecutionError
from . import exits
from .stage import Stage

if TYPE_CHECKING:
    from .arguments import Commands
    from .parser import Parser

__all__ = ["add_commands"]

_AGENT = (sys.executable, "-I", "-S", str(Path(demo_agent.__file__)), "--interval=0.3")
_BACKENDS = {
    "worker": BackendConfig(command=(*_AGENT, "--steps=12", "--", "{task}")),
    "listener": BackendConfig(command=(*_AGENT, "--steps=0", "--", "{task}"), stdin="pipe"),
    "unlucky": BackendConfig(command=(*_AGENT, "--steps=5", "--exit-code=3", "--", "{task}")),
}
_CAST = (
    AgentConfig(name="ada", model_backend="worker", task="count to twelve"),
    AgentConfig(name="grace", model_backend="listener", task="wait for orders"),
    AgentConfig(name="linus", model_backend="unlucky", task="fail on purpose"),
)


def add_commands(commands: Commands, shared: Parser) -> None:
    """Add the group's command."""
    demo = commands.add_parser(
        "demo",
        help="show it all in ten seconds",
        description="Start a server of our own in a temporary directory, and a few small "
        "agents; show their output and status; pause, resume, write to, and stop them; leave "
        "nothing behind.",
    )
    demo.add_argument("--json", action="store_true", help="print the messages as JSON, by line")
    demo.set_defaults(handler=_demo, serves=True)


async def _demo(arguments: Namespace) -> int:
    stage = Stage(as_json=arguments.json)
    began = time.monotonic()
    # A short path: that of an ipc endpoint may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="dfast-") as folder:
        pids = await _perform(stage, Path(folder))
    if left := _left_behind(folder, pids):
        raise ExecutionError(f"the demo left behind: {', '.join(left)}")
    stage.say("Nothing is left")
    stage.explain(f"{len(pids)} processes have ended, {folder} is gone")
    stage.explain(f"{time.monotonic() - began:.1f} seconds. Next: descartes-fast serve --help")
    return exits.OK


async def _perform(stage: Stage, folder: Path) -> list[int]:
    """Play the whole demo on a server in ``folder``; return the processes that were there."""
    from ..server import ZmqAgentServer

    config = ZmqServerConfig(
        endpoint=f"ipc://{folder}/commands",
        pub_endpoint=f"ipc://{folder}/events",
        state_dir=str(folder / "state"),
        journal=False,  # its agents end with it, also when it is killed
        backends=_BACKENDS,
    )
    stage.say("A server starts                     $ descartes-fast serve")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ZmqAgentServer(config))
        stage.explain(f"commands at {server.endpoint}")
        stage.explain(f"status and logs at {server.pub_endpoint}")
        client = ZmqClient(ZmqRunnerConfig(endpoint=server.endpoint))
        stack.push_async_callback(client.disconnect)
        await client.connect()
        return await _direct(stage, client)


async def _direct(stage: Stage, client: ZmqClient) -> list[int]:
    """Play the scenes, and show what happens while they are played."""
    updates = await client.subscribe_status_updates()
    logs = await client.stream_agent_logs()
    try:
        async with updates, logs, asyncio.TaskGroup() as group:
            showing = [
                group.create_task(stage.show_output(logs)),
                group.create_task(stage.show_status(updates)),
            ]
            pids = await _scenes(stage, client)
            for task in showing:
                task.cancel()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return pids


async def _scenes(stage: Stage, client: ZmqClient) -> list[int]:
    stage.say("Three agents start                  $ descartes-fast spawn --backend NAME TASK")
    stage.explain("each a process of its own: Claude Code, any command, here small programs")
    ada, grace, linus = [await _enter(stage, client, config) for config in _CAST]
    pids = [await _pid(client, agent) for agent in (ada, grace, linus)]
    await asyncio.sleep(1.2)

    stage.say("ada is frozen, the others go on     $ descartes-fast pause ID")
    await client.pause_agent(ada)
    await client.wait_agent(linus)
    await asyncio.sleep(0.5)

    stage.say("ada goes on where it was            $ descartes-fast resume ID")
    await client.resume_agent(ada)
    await asyncio.sleep(0.7)

    stage.say("We write to the stdin of grace      $ descartes-fast write ID TEXT")
    await client.write_agent_stdin(grace, b"hello from the demo\n")
    await asyncio.sleep(0.7)

    stage.say("grace is stopped, ada finishes      $ descartes-fast stop ID")
    await client.stop_agent(grace)
    await asyncio.gather(client.wait_agent(grace), client.wait_agent(ada))
    await asyncio.sleep(0.1)

    stage.say("How they ended                      $ descartes-fast ps")
    for agent in (ada, grace, linus):
        end = await client.wait_agent(agent)
        words = exits.outcome(end.exit_code, end.signal)
        stage.explain(f"{agent.name:<6} {end.status.value:<10} {words}")
    return pids


async def _enter(stage: Stage, client: ZmqClient, config: AgentConfig) -> AgentInfo:
    info = await client.spawn_remote(config)
    stage.enters(info.id, info.name)
    return info


async def _pid(client: ZmqClient, agent: AgentInfo) -> int:
    response = await client.control_agent(agent, ControlCommandType.GET_STATUS)
    return int(response.data["pid"])


def _left_behind(folder: str, pids: list[int]) -> list[str]:
    left = [f"process {pid}" for pid in pids if _exists(pid)]
    return left + [folder] * os.path.exists(folder)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
