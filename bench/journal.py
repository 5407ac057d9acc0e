"""What the journal costs: two servers, one with it and one without, in turns.

Each server is a process of its own (``serve``); one public client in this process asks both,
always ``--in-flight`` calls at a time. A round goes to one server and then to the other, the
order changes from round to round, and the ratio is that of the medians of all rounds: many short
ones, because a server's rate differs by a tenth between one second and the next.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import uvloop

from descartes_fast import AgentConfig, ZmqClient, ZmqRunnerConfig

TARGETS = {"spawn": 0.85, "signal": 0.95, "get_status": 0.95}
"""The least ratio that is good enough: with the journal to without."""

_SETTINGS = """\
[zmq_server]
endpoint = "ipc://{folder}/commands"
pub_endpoint = "ipc://{folder}/events"
state_dir = "{folder}/state"
journal = {journal}
max_agents = 100000
retain_agents = 1000

[backends.run]
command = ["{{argv}}"]
"""

Calls = Callable[[], Awaitable[object]]


@contextlib.contextmanager
def running_server(journal: bool, folder: str | None) -> Iterator[str]:
    """Run a server; yield its endpoint."""
    with tempfile.TemporaryDirectory(prefix="dfast-bench-", dir=folder) as made:
        config = Path(made) / "config.toml"
        config.write_text(_SETTINGS.format(folder=made, journal=str(journal).lower()))
        command = [sys.executable, "-m", "descartes_fast", "serve", "--json"]
        with subprocess.Popen(
            [*command, "--config", str(config)], stdout=subprocess.PIPE, env=_environment()
        ) as process:
            assert process.stdout is not None
            try:
                yield json.loads(process.stdout.readline())["endpoint"]
            finally:
                process.terminate()
                process.wait(timeout=60)


def _environment() -> dict[str, str]:
    """Return our environment without what would configure a server."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith("DESCARTES_FAST_")
    }


async def rate(call: Calls, count: int, in_flight: int) -> float:
    """Return how many calls a second are answered, ``in_flight`` at a time."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await call()

    gc.collect()
    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return count / (time.perf_counter() - begun)


async def operations(client: ZmqClient) -> dict[str, Calls]:
    """Return what is measured, on an agent of this client's server that lives long enough."""
    agent = await client.spawn_remote(
        AgentConfig(name="target", model_backend="run", task="sleep 36000")
    )
    short = AgentConfig(name="short", model_backend="run", task="true")
    return {
        "signal": lambda: client.signal_agent(agent.id, "SIGURG"),  # ignored by default
        "get_status": lambda: client.get_agent_status(agent.id),
        "spawn": lambda: client.spawn_remote(short),
    }


async def until_quiet(client: ZmqClient) -> None:
    """Wait until only the target lives: no round pays for the ends of another one's agents."""
    while (await client.health_check()).active_agents != 1:
        await asyncio.sleep(0.02)


async def measure(arguments: argparse.Namespace) -> dict[str, dict[bool, list[float]]]:
    """Return the rates of each operation by whether there is a journal."""
    counts = {"signal": arguments.calls, "get_status": arguments.calls, "spawn": arguments.spawns}
    found = {name: {True: [], False: []} for name in counts}  # type: dict[str, dict[bool, list[float]]]
    async with contextlib.AsyncExitStack() as stack:
        clients, calls = {}, {}
        for journal in (False, True):
            endpoint = stack.enter_context(running_server(journal, arguments.folder))
            client = ZmqClient(ZmqRunnerConfig(endpoint=endpoint))
            await client.connect()
            stack.push_async_callback(client.disconnect)
            clients[journal], calls[journal] = client, await operations(client)
        for number in range(arguments.rounds + 1):
            for name, count in counts.items():
                if arguments.only and name not in arguments.only:
                    continue
                for journal in (number % 2 == 0, number % 2 == 1):
                    figure = await rate(calls[journal][name], count, arguments.in_flight)
                    await until_quiet(clients[journal])
                    if number:  # the first round warms up
                        found[name][journal].append(figure)
    return found


def report(found: dict[str, dict[bool, list[float]]]) -> bool:
    """Print the table; tell whether every ratio is good enough."""
    print(f"{'':12} {'without':>17} {'with journal':>17} {'ratio':>6} {'of best':>8} {'target':>7}")
    good = True
    for name, rates in found.items():
        if not rates[True]:
            continue
        off, on = (statistics.median(rates[journal]) for journal in (False, True))
        best_off, best_on = max(rates[False]), max(rates[True])
        good = good and on / off >= TARGETS[name]
        print(
            f"{name:12} {off:8,.0f} ({best_off:6,.0f}) {on:8,.0f} ({best_on:6,.0f}) "
            f"{on / off:6.3f} {best_on / best_off:8.3f} {TARGETS[name]:7.2f}"
        )
    print("calls a second: median (best)")
    return good


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench journal", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--calls", type=int, default=4000, help="control commands in a round")
    parser.add_argument("--spawns", type=int, default=200, help="spawns in a round")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--only", action="append", choices=list(TARGETS))
    parser.add_argument("--folder", help="where the state directories are made")
    arguments = parser.parse_args(argv)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(measure(arguments))
    return 0 if report(found) else 1


if __name__ == "__main__":
    sys.exit(main())
