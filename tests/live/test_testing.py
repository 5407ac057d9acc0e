"""What people who embed us get for their tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from command_line import clean_environment
from descartes_fast import AgentConfig, connect
from descartes_fast.testing import descartes_server

_THEIR_CONFTEST = """\
pytest_plugins = ["descartes_fast.testing"]
"""

_THEIR_TEST = """\
import pytest
from descartes_fast import AgentConfig

pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

async def test_greeting(agent_client):
    agent = await agent_client.spawn_remote(AgentConfig(model_backend="py", task="print(6 * 7)"))
    assert (await agent_client.wait_agent(agent)).exit_code == 0
    assert await agent_client.read_agent_stdout(agent) == b"42\\n"

async def test_server(agent_server):
    assert agent_server.endpoint.startswith("ipc://")
"""


def test_the_fixtures_work_in_a_project_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(_THEIR_CONFTEST)
    (tmp_path / "test_theirs.py").write_text(_THEIR_TEST)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:asyncio",
            "-W",
            "error",
            ".",
        ],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=clean_environment() | {"PYTEST_ADDOPTS": ""},
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()
    assert b"2 passed" in done.stdout


async def test_server_takes_settings_and_is_gone_after_its_block() -> None:
    async with descartes_server(max_agents=1, server_id="tiny") as server:
        folder = Path(server.endpoint.removeprefix("ipc://")).parent
        async with connect(server.endpoint) as client:
            await client.spawn_remote(AgentConfig(model_backend="sh", task="sleep 600"))
            assert (await client.health_check()).metadata["server_id"] == "tiny"
    assert not folder.exists()


async def test_two_servers_run_beside_each_other() -> None:
    async with descartes_server() as one, descartes_server() as other:
        assert one.endpoint != other.endpoint
        async with connect(one.endpoint) as here, connect(other.endpoint) as there:
            await here.spawn_remote(AgentConfig(model_backend="sh", task="true"))
            assert len(await here.list_remote_agents()) == 1
            assert await there.list_remote_agents() == []
