"""Servers for the tests of programs that embed this package.

:func:`descartes_server` is a running server whose endpoints, state and agents are gone
when its block ends; its agents are scripts given as the task, so a test needs no AI
tool and no network::

    async def test_my_orchestrator():
        async with descartes_server() as server, connect(server.endpoint) as client:
            agent = await client.spawn_remote(AgentConfig(model_backend="sh", task="echo hi"))
            assert (await client.wait_agent(agent)).exit_code == 0

With ``pytest_plugins = ["descartes_fast.testing"]`` in a ``conftest.py`` the same is there as
the fixtures ``agent_server`` and ``agent_client``. They are asynchronous fixtures: run
them with anyio's pytest plugin, or with pytest-asyncio in its automatic mode. Needs pytest.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from .client import ZmqClient, connect
from .config import BackendConfig, ZmqServerConfig
from .server import ZmqAgentServer

__all__ = ["SCRIPT_BACKENDS", "agent_client", "agent_server", "descartes_server"]

SCRIPT_BACKENDS: Mapping[str, BackendConfig] = {
    "sh": BackendConfig(
        command=("sh", "-c", "{task}"), stdin="pipe", environment=("PATH", "HOME", "TMPDIR")
    ),
    "py": BackendConfig(
        command=(sys.executable, "-c", "{task}"),
        stdin="pipe",
        environment=("PATH", "HOME", "TMPDIR"),
    ),
}
"""Backends whose task is the program: a shell script (``sh``), a Python program (``py``)."""


@asynccontextmanager
async def descartes_server(**settings: Any) -> AsyncIterator[ZmqAgentServer]:
    """Run a server on ipc endpoints in a temporary directory for the length of a block.

    ``settings`` are those of :class:`~descartes_fast.ZmqServerConfig`; what is not given is
    ``ipc://`` endpoints and a state directory in the temporary directory, no journal (when the
    tests' process is killed, the agents end with it), and :data:`SCRIPT_BACKENDS`. At the end
    the agents are killed unless they end by themselves within ``stop_grace_secs`` (here 1).

    Yields the started :class:`~descartes_fast.server.ZmqAgentServer`.
    """
    # A short prefix: the path of an ipc endpoint may have 107 bytes (libzmq, sun_path).
    with tempfile.TemporaryDirectory(prefix="dfast-") as folder:
        config = ZmqServerConfig(**_in_folder(Path(folder)) | settings)
        async with ZmqAgentServer(config) as server:
            yield server


def _in_folder(folder: Path) -> dict[str, Any]:
    return {
        "endpoint": f"ipc://{folder}/commands",
        "pub_endpoint": f"ipc://{folder}/events",
        "state_dir": str(folder / "state"),
        "journal": False,
        "stop_grace_secs": 1.0,
        "backends": SCRIPT_BACKENDS,
    }


@pytest.fixture
async def agent_server() -> AsyncIterator[ZmqAgentServer]:
    """A running server with :data:`SCRIPT_BACKENDS`."""
    async with descartes_server() as server:
        yield server


@pytest.fixture
async def agent_client(agent_server: ZmqAgentServer) -> AsyncIterator[ZmqClient]:
    """A client connected to ``agent_server``."""
    async with connect(agent_server.endpoint) as client:
        yield client
