"""A second server on endpoints that are in use: it refuses, and the first goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from descartes_fast import HealthCheckRequest, UsageError, ZmqServerConfig
from descartes_fast.server import ZmqAgentServer
from raw_peers import new_id, peer


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dfast-") as path:
        yield Path(path)


def config_in(folder: Path, state: str, **settings: str) -> ZmqServerConfig:
    defaults = {
        "endpoint": f"ipc://{folder}/sockets/commands",
        "pub_endpoint": f"ipc://{folder}/sockets/events",
        "state_dir": str(folder / state),
    }
    return ZmqServerConfig(**(defaults | settings))


async def assert_serves(server: ZmqAgentServer) -> None:
    async with peer(server.endpoint) as asking:
        response = await asking.ask(HealthCheckRequest(request_id=new_id()))
        assert response.metadata["server_id"] == server.server_id


@pytest.mark.parametrize("name", ["endpoint", "pub_endpoint"])
async def test_second_server_on_a_live_ipc_path_refuses_and_steals_nothing(
    folder: Path, name: str
) -> None:
    async with ZmqAgentServer(config_in(folder, "one")) as first:
        other = "pub_endpoint" if name == "endpoint" else "endpoint"
        second = ZmqAgentServer(
            config_in(folder, "two", **{other: f"ipc://{folder}/sockets/another"})
        )
        with pytest.raises(UsageError, match="another running server"):
            await second.start()
        await assert_serves(first)
        assert sorted(os.listdir(folder / "sockets")) == [
            "commands",
            "commands.lock",
            "events",
            "events.lock",
        ]
    async with ZmqAgentServer(config_in(folder, "two")) as later:
        await assert_serves(later)


async def test_one_path_for_both_sockets_is_refused(folder: Path) -> None:
    config = config_in(folder, "one", pub_endpoint=f"ipc://{folder}/sockets/commands")
    with pytest.raises(UsageError):
        await ZmqAgentServer(config).start()


async def test_directory_that_a_server_makes_for_its_sockets_is_private(folder: Path) -> None:
    async with ZmqAgentServer(config_in(folder, "one")):
        assert stat.S_IMODE((folder / "sockets").stat().st_mode) == 0o700
        for name in ("commands", "events"):
            assert stat.S_IMODE((folder / "sockets" / name).stat().st_mode) & 0o077 == 0


KILLED = """
import asyncio, os, signal, sys
from descartes_fast import ZmqServerConfig
from descartes_fast.server import ZmqAgentServer

async def main(folder):
    config = ZmqServerConfig(endpoint=f"ipc://{folder}/sockets/commands",
        pub_endpoint=f"ipc://{folder}/sockets/events", state_dir=folder + "/one")
    async with ZmqAgentServer(config):
        print("ready", flush=True)
        await asyncio.sleep(60)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.leaves_orphans
def test_killed_server_leaves_a_socket_that_the_next_one_takes(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert (folder / "sockets" / "commands").exists()

    async def take() -> None:
        async with ZmqAgentServer(config_in(folder, "one")) as server:
            await assert_serves(server)

    asyncio.run(take())
    assert os.listdir(folder / "sockets") == []
