"""A server's start, its end, and what it leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import BackendConfig, HealthCheckRequest, UsageError, ZmqServerConfig
from descartes_fast.server import ZmqAgentServer
from descartes_fast.testing import SCRIPT_BACKENDS
from raw_peers import Peer, command_of, new_id, peer, subscriber

if TYPE_CHECKING:
    from conftest import StartServer


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dfast-") as path:
        yield Path(path)


def config_in(folder: Path, **settings: Any) -> ZmqServerConfig:
    defaults: dict[str, Any] = {
        "endpoint": f"ipc://{folder}/commands",
        "pub_endpoint": f"ipc://{folder}/events",
        "state_dir": str(folder / "state"),
        "stop_grace_secs": 1.0,
        "backends": SCRIPT_BACKENDS,
    }
    return ZmqServerConfig(**(defaults | settings))


async def healthy(asking: Peer) -> bool:
    response = await asking.ask(HealthCheckRequest(request_id=new_id()))
    return bool(response.healthy)


async def test_tcp_port_zero_becomes_a_real_endpoint(start_server: StartServer) -> None:
    server = await start_server(endpoint="tcp://127.0.0.1:0", pub_endpoint="tcp://[::1]:0")
    assert server.endpoint.startswith("tcp://127.0.0.1:")
    assert server.pub_endpoint.startswith("tcp://[::1]:")
    assert not server.endpoint.endswith(":0")
    async with peer(server.endpoint) as asking, subscriber(server.pub_endpoint, "status/"):
        assert await healthy(asking)


async def test_advertised_publishing_endpoint_is_what_clients_are_told(
    start_server: StartServer,
) -> None:
    server = await start_server(advertise_pub="tcp://192.0.2.1:5556")
    async with peer(server.endpoint) as asking:
        response = await asking.ask(HealthCheckRequest(request_id=new_id()))
    assert response.metadata["pub_endpoint"] == "tcp://192.0.2.1:5556"
    assert server.pub_endpoint.startswith("ipc://")


async def test_files_of_a_server_are_its_users_alone(start_server: StartServer) -> None:
    server = await start_server()
    async with peer(server.endpoint) as asking:
        await asking.end(await asking.spawn("echo out; echo err >&2"))
    state = server.config.state_path()
    for path in [state, *state.rglob("*")]:
        mode = path.lstat().st_mode
        assert stat.S_IMODE(mode) & 0o077 == 0, path
    for endpoint in (server.endpoint, server.pub_endpoint):
        assert os.stat(endpoint.removeprefix("ipc://")).st_mode & 0o077 == 0


async def test_close_ends_agents_and_removes_socket_files(folder: Path) -> None:
    server = ZmqAgentServer(config_in(folder))
    async with server, peer(server.endpoint) as asking:
        agents = [await asking.spawn("exec sleep 60") for _ in range(5)]
        await asking.data(agents[0], "pause")
        pids = [(await asking.data(agent, "get_status"))["pid"] for agent in agents]
        stubborn = await asking.spawn("trap '' TERM; echo ready; while :; do sleep 0.01; done")
        await asking.data(stubborn, "read_stdout", {"wait_secs": 5})
        pids.append((await asking.data(stubborn, "get_status"))["pid"])
    await server.aclose()
    assert os.listdir(folder) == ["state"]
    assert not {str(pid) for pid in pids} & set(os.listdir("/proc"))


async def test_close_publishes_every_end_and_answers_what_is_in_flight(
    start_server: StartServer, folder: Path
) -> None:
    server = ZmqAgentServer(config_in(folder))
    await server.start()
    async with peer(server.endpoint) as asking, subscriber(server.pub_endpoint, "status/") as heard:
        agent = await asking.spawn("exec sleep 60")

        async def endless(info: Any, params: Any) -> None:
            await asyncio.sleep(600)

        server.register_action("endless", endless)
        reading = await asking.send(command_of(agent.id, "read_stdout", {"wait_secs": 20}))
        acting = await asking.send(command_of(agent.id, "custom_action", {"action": "endless"}))
        await asking.data(agent, "get_status")  # the two before it have arrived
        closing = asyncio.create_task(server.aclose())
        found = await heard.until_end_of(agent.id)
        assert found[-1].status.value == "terminated"
        assert (await asking.reply(reading)).data["eof"] is True
        assert "may have been done" in (await asking.reply(acting)).error
        await closing


async def test_server_that_shuts_down_refuses_new_work_and_answers_the_rest(folder: Path) -> None:
    server = ZmqAgentServer(config_in(folder))
    await server.start()
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("trap 'read x' TERM; echo ready; read x; read x")
        await asking.data(agent, "read_stdout", {"wait_secs": 5})
        closing = asyncio.create_task(server.aclose())
        await asyncio.sleep(0)  # it has begun
        response = await asking.spawn_response("true")
        assert (response.error or "").startswith("shutting_down: ")
        health = await asking.ask(HealthCheckRequest(request_id=new_id()))
        assert not health.healthy
        assert "shutting down" in health.metadata["reason"]
        assert (await asking.data(agent, "get_status"))["status"] == "running"
        await asking.data(agent, "kill")
        await closing


async def test_close_twice_and_at_once_is_fine(folder: Path) -> None:
    server = ZmqAgentServer(config_in(folder))
    await server.start()
    await asyncio.gather(server.aclose(), server.aclose())
    await server.aclose()
    with pytest.raises(UsageError):
        await server.start()


async def test_cancelled_close_goes_on(folder: Path) -> None:
    server = ZmqAgentServer(config_in(folder))
    await server.start()
    closing = asyncio.create_task(server.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await server.aclose()
    assert os.listdir(folder) == ["state"]


async def test_close_before_start_is_nothing(folder: Path) -> None:
    server = ZmqAgentServer(config_in(folder))
    await server.aclose()
    with pytest.raises(UsageError):
        assert server.endpoint
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"endpoint": "tcp://0.0.0.0:0"},
        {"pub_endpoint": "tcp://0.0.0.0:0"},
        {"pub_endpoint": "ipc:///proc/no/such/place"},
        {"pub_endpoint": "ipc:///tmp/" + "x" * 200},
        {"state_dir": "/proc/no-such-place"},
        {"backends": {"empty": BackendConfig()}},
    ],
)
async def test_start_that_fails_leaves_nothing(folder: Path, settings: dict[str, Any]) -> None:
    server = ZmqAgentServer(config_in(folder, **settings))
    with pytest.raises(UsageError):
        await server.start()
    await server.aclose()
    assert set(os.listdir(folder)) <= {"state"}
    async with ZmqAgentServer(config_in(folder)):
        pass


async def test_start_on_a_port_in_use_says_so(start_server: StartServer, folder: Path) -> None:
    first = await start_server(endpoint="tcp://127.0.0.1:0")
    second = ZmqAgentServer(config_in(folder, endpoint=first.endpoint))
    with pytest.raises(UsageError, match="in use"):
        await second.start()


async def test_start_that_is_cancelled_leaves_nothing(folder: Path) -> None:
    for turns in (0, 1, 2, 3, 5, 10, 50):
        server = ZmqAgentServer(config_in(folder))
        starting = asyncio.create_task(server.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await server.aclose()
    assert set(os.listdir(folder)) <= {"state"}


async def test_second_server_on_a_state_directory_is_refused(folder: Path) -> None:
    async with ZmqAgentServer(config_in(folder)) as server:
        other = config_in(
            folder, endpoint=f"ipc://{folder}/other", pub_endpoint=f"ipc://{folder}/other-events"
        )
        with pytest.raises(UsageError, match="another server"):
            await ZmqAgentServer(other).start()
        async with peer(server.endpoint) as asking:
            assert await healthy(asking)


async def test_agents_of_an_earlier_run_are_listed_and_the_name_is_kept(folder: Path) -> None:
    async with ZmqAgentServer(config_in(folder)) as server, peer(server.endpoint) as asking:
        name = server.server_id
        agent = await asking.spawn("echo old; exit 3")
        await asking.end(agent)
    async with ZmqAgentServer(config_in(folder)) as server, peer(server.endpoint) as asking:
        assert server.server_id == name
        data = await asking.data(agent, "get_status")
        assert (data["status"], data["exit_code"]) == ("failed", 3)
        read = await asking.data(agent, "read_stdout", {"encoding": "text"})
        assert (read["data"], read["eof"]) == ("old\n", True)


async def test_output_of_an_earlier_run_is_removed_without_a_journal(folder: Path) -> None:
    async with (
        ZmqAgentServer(config_in(folder, journal=False)) as server,
        peer(server.endpoint) as asking,
    ):
        await asking.end(await asking.spawn("echo old"))
    agents = folder / "state" / "agents"
    assert os.listdir(agents)
    async with ZmqAgentServer(config_in(folder, journal=False)):
        assert os.listdir(agents) == []


async def test_serve_forever_outside_the_main_thread_ends_with_aclose(folder: Path) -> None:
    started = threading.Event()
    servers: list[ZmqAgentServer] = []

    async def serve() -> None:
        server = ZmqAgentServer(config_in(folder))
        servers.append(server)
        serving = asyncio.create_task(server.serve_forever())
        async with asyncio.timeout(10):
            while not (folder / "events").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        started.set()
        await server.aclose()
        await serving

    await asyncio.to_thread(asyncio.run, serve())
    assert started.is_set()


SERVE = """
import asyncio, signal, sys
from pathlib import Path
from descartes_fast import ZmqServerConfig
from descartes_fast.server import ZmqAgentServer
from descartes_fast.testing import SCRIPT_BACKENDS

async def main(folder):
    server = ZmqAgentServer(ZmqServerConfig(
        endpoint=f"ipc://{folder}/commands", pub_endpoint=f"ipc://{folder}/events",
        state_dir=folder + "/state", stop_grace_secs=float(sys.argv[2]), backends=SCRIPT_BACKENDS,
    ))
    await server.start()
    print("ready", flush=True)
    before = signal.getsignal(signal.SIGTERM)
    await server.serve_forever()
    assert signal.getsignal(signal.SIGTERM) is before
    print("ended", flush=True)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_signal_closes_and_a_second_one_kills(
    folder: Path, number: signal.Signals, twice: bool
) -> None:
    grace = "60" if twice else "0.2"
    process = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-c", SERVE, str(folder), grace],
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        async with peer(f"ipc://{folder}/commands") as asking:
            agent = await asking.spawn("trap '' TERM; echo ready; while :; do sleep 0.01; done")
            await asking.data(agent, "read_stdout", {"wait_secs": 5})
            process.send_signal(number)
            if twice:
                # Once it is shutting down, and not before: the first must have been taken.
                while (await asking.spawn_response("true")).success:
                    pass
                process.send_signal(number)
            async with asyncio.timeout(10):
                assert await asyncio.to_thread(process.stdout.read) == b"ended\n"
    assert process.returncode == 0
    assert os.listdir(folder) == ["state"]
