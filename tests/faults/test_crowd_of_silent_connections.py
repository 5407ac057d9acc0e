"""More connections than descriptors, none of which says a word: those who are served stay so."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from urllib.parse import urlsplit

import pytest

from descartes_fast import AgentConfig, connect
from faults.server_process import server_process


def dialled(endpoint: str) -> socket.socket | None:
    """Return a connection to an endpoint, or ``None`` if it has no room for one."""
    parts = urlsplit(endpoint)
    ipc = parts.scheme == "ipc"
    made = socket.socket(socket.AF_UNIX if ipc else socket.AF_INET)
    made.setblocking(False)
    try:
        made.connect(parts.path if ipc else (parts.hostname, parts.port))
    except BlockingIOError:
        if ipc:
            made.close()
            return None
    return made


async def dial(crowd: contextlib.ExitStack, endpoint: str) -> None:
    while (made := dialled(endpoint)) is None:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)
    crowd.enter_context(made)


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
async def test_silent_crowd_neither_ends_the_server_nor_disturbs_a_client(scheme: str) -> None:
    wrapper = ("sh", "-c", 'ulimit -S -n 100; ulimit -H -n 200; exec "$@"', "sh")
    with server_process(*wrapper, settings="fd_reserve = 8", tcp=scheme == "tcp") as server:
        async with connect(server.endpoint) as client:
            agent = await client.spawn_remote(AgentConfig(model_backend="sh", task="exit 3"))
            with contextlib.ExitStack() as crowd:
                for _ in range(300):
                    await dial(crowd, server.endpoint)
                    await asyncio.sleep(0.002)
                assert server.process.poll() is None
                assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 3
                again = await client.spawn_remote(AgentConfig(model_backend="sh", task="exit 4"))
                assert (await client.wait_agent(again, timeout_secs=10)).exit_code == 4
            async with connect(server.endpoint, connection_timeout_secs=10) as later:
                assert len(await later.list_remote_agents()) == 2


async def test_soft_limit_of_descriptors_is_raised_for_the_server_and_not_for_agents() -> None:
    wrapper = ("sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh")
    with server_process(*wrapper) as server:
        async with connect(server.endpoint) as client:
            task = "sleep 0.3; ulimit -Sn"
            agent = await client.spawn_remote(AgentConfig(model_backend="sh", task=task))
            with contextlib.ExitStack() as crowd:
                for _ in range(600):
                    await dial(crowd, server.endpoint)
                await client.wait_agent(agent, timeout_secs=10)
                assert await client.read_agent_stdout(agent) == b"256\n"
