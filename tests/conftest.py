"""Fixtures every test may use: event loops, a server with test backends, a client, the leak watch.

Asynchronous tests need no mark; each runs under uvloop and under asyncio's debug mode.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from leaks import (
    Holdings,
    adopt_orphans,
    reap_orphans,
    wait_until_no_task_but,
    wait_until_nothing_more,
)
from measured_keeper import write_measured_keeper

if TYPE_CHECKING:
    from descartes_fast import ZmqClient
    from descartes_fast.server import ZmqAgentServer

StartServer = Callable[..., "Awaitable[ZmqAgentServer]"]

_HERE = Path(__file__).parent
_WATCHED = {_HERE / "live", _HERE / "faults"}

# A test that names one of these needs a server, or a part of one.
_OF_A_SERVER = (
    "backend_configs",
    "command_line",
    "demo_agent",
    "descartes_fast.cli",
    "descartes_fast.server",
    "descartes_fast.testing",
    "fake_keeper",
    "keepers",
    "start_server",
    "ZmqAgentServer",
)

if sys.platform == "win32":
    _BACKENDS = [
        pytest.param(
            ("asyncio", {"loop_factory": asyncio.SelectorEventLoop, "debug": True}),
            id="asyncio-debug",
        )
    ]
else:
    _BACKENDS = [
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        pytest.param(("asyncio", {"debug": True}), id="asyncio-debug"),
    ]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "leaves_orphans: the test kills a parent on purpose; its ended children are collected "
        "for it instead of counting as zombies",
    )
    adopt_orphans()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what runs a server where there can be none: it needs POSIX, a client does not."""
    if sys.platform != "win32" or not collection_path.match("test_*.py"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    return True if any(name in text for name in _OF_A_SERVER) else None


@pytest.fixture(params=_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loop of an asynchronous test."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture(autouse=True)
def leak_watch(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a live or fault test that ends with more than it began with."""
    if _WATCHED.isdisjoint(request.path.parents):
        yield
        return
    if "anyio_backend" in request.fixturenames:
        # First, so that the loop's own descriptors are there before the count begins.
        request.getfixturevalue("task_watch")
    before = Holdings.now()
    yield
    if request.node.get_closest_marker("leaves_orphans"):
        reap_orphans(before)
    left = wait_until_nothing_more(before)
    if request.node.get_closest_marker("leaves_orphans"):
        reap_orphans(before)
        left = Holdings.now().more_than(before)
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(scope="session")
def keeper_program(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The keeper to start where coverage is measured, else ``None``."""
    path = tmp_path_factory.mktemp("keeper") / "measured.py"
    return path if write_measured_keeper(path) else None


@pytest.fixture(autouse=True)
def measure_keeper(
    request: pytest.FixtureRequest,
    keeper_program: Path | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Measure the keepers of live tests; those of fault tests keep their full speed."""
    if keeper_program is not None and _HERE / "live" in request.path.parents:
        monkeypatch.setattr("descartes_fast.server.keeper_process._PROGRAM", keeper_program)


@pytest.fixture
async def task_watch() -> AsyncIterator[None]:
    """Fail a test that leaves an asyncio task running."""
    await _open_a_stream()
    before = asyncio.all_tasks()
    yield
    if left := await wait_until_no_task_but(before):
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)


async def _open_a_stream() -> None:
    """Let libuv open /dev/null, which it does with a loop's first stream and keeps (EMFILE)."""
    ours, theirs = socket.socketpair()
    with theirs:
        _, writer = await asyncio.open_connection(sock=ours)
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def start_server() -> AsyncIterator[StartServer]:
    """Start servers on ipc endpoints in temporary directories, closed when the test ends.

    ``await start_server(**settings)`` takes any setting of ``ZmqServerConfig``. They keep a
    journal, as servers do unless told otherwise. Unless ``backends`` is given, these are ``sh``
    (the task is a shell script) and ``py`` (the task is a Python program).
    """
    from descartes_fast.testing import descartes_server

    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> ZmqAgentServer:
            usual = {"journal": True}
            return await stack.enter_async_context(descartes_server(**usual | settings))

        yield start


@pytest.fixture
async def server(start_server: StartServer) -> ZmqAgentServer:
    """A running server with the test backends ``sh`` and ``py``."""
    return await start_server()


@pytest.fixture
async def client(server: ZmqAgentServer) -> AsyncIterator[ZmqClient]:
    """A client connected to ``server``."""
    from descartes_fast import connect

    async with connect(server.endpoint) as connected:
        yield connected
