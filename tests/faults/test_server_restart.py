"""The server is killed and started again: agents, readers and followers go on where they were."""

# ruff: noqa: ASYNC110 - other processes have no events to wait for
from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    ControlCommandType,
    LogStreamType,
    StatusUpdateType,
    ZmqClient,
    connect,
)
from faults.restarts import RestartableServer, restartable_server

pytestmark = pytest.mark.leaves_orphans


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One loop is enough: the server is a process of its own."""
    return "asyncio", {"use_uvloop": True}


@asynccontextmanager
async def restartable(settings: str = "") -> AsyncIterator[tuple[RestartableServer, ZmqClient]]:
    with restartable_server(settings=settings) as server:
        async with connect(server.endpoint, request_timeout_secs=30) as client:
            yield server, client


async def restart(server: RestartableServer) -> None:
    await asyncio.to_thread(server.restart)


async def spawn(client: ZmqClient, task: str) -> AgentInfo:
    return await client.spawn_remote(AgentConfig(model_backend="sh", task=task))


async def details(client: ZmqClient, agent: AgentInfo) -> dict[str, Any]:
    response = await client.control_agent(agent, ControlCommandType.GET_STATUS)
    data: dict[str, Any] = response.data
    return data


async def read_more(client: ZmqClient, agent: AgentInfo, length: int) -> bytes:
    found = b""
    async with asyncio.timeout(10):
        while len(found) < length:
            found += await client.read_agent_stdout(agent) or b""
            await asyncio.sleep(0.01)
    return found


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


async def test_stdin_goes_on_and_ends_after_a_restart() -> None:
    async with restartable() as (server, client):
        agent = await spawn(client, "cat; echo the end; exit 3")
        await client.write_agent_stdin(agent, b"one\n")
        await restart(server)
        await client.write_agent_stdin(agent, b"two\n")
        await client.write_agent_stdin(agent, b"three\n", close=True)
        end = await client.wait_agent(agent, timeout_secs=10)
        assert (end.exit_code, end.signal) == (3, None)
        assert await client.read_agent_stdout(agent) == b"one\ntwo\nthree\nthe end\n"


async def test_stdin_that_was_closed_before_a_restart_stays_closed() -> None:
    async with restartable() as (server, client):
        agent = await spawn(client, "sleep 1; cat; exit 3")
        await client.write_agent_stdin(agent, b"all of it\n", close=True)
        await restart(server)
        end = await client.wait_agent(agent, timeout_secs=10)
        assert end.exit_code == 3
        assert await client.read_agent_stdout(agent) == b"all of it\n"


async def test_shared_read_cursor_goes_on_where_it_was() -> None:
    async with restartable() as (server, client):
        agent = await spawn(client, "echo first; read go; echo second; read go; echo third")
        assert await read_more(client, agent, 6) == b"first\n"
        await restart(server)
        assert await client.read_agent_stdout(agent) is None
        await client.write_agent_stdin(agent, b"\n")
        assert await read_more(client, agent, 7) == b"second\n"
        await restart(server)
        await client.write_agent_stdin(agent, b"\n")
        assert await read_more(client, agent, 6) == b"third\n"
        await client.wait_agent(agent, timeout_secs=10)


async def test_paused_agent_is_paused_after_a_restart_and_can_be_resumed() -> None:
    async with restartable() as (server, client):
        agent = await spawn(client, "read word; echo $word")
        await client.pause_agent(agent)
        before = await details(client, agent)
        await restart(server)
        (listed,) = await client.list_remote_agents()
        assert listed.status is AgentStatus.PAUSED
        assert listed.paused_at is not None
        after = await details(client, agent)
        assert after["seq"] > before["seq"]
        assert after["pid"] == before["pid"]
        assert after["started_at"] == before["started_at"]
        await client.write_agent_stdin(agent, b"hello\n")
        await client.resume_agent(agent)
        assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 0
        assert await client.read_agent_stdout(agent) == b"hello\n"


async def test_ends_that_came_while_there_was_no_server_are_told() -> None:
    async with restartable() as (server, client):
        tasks = ["sleep 0.3; echo out; exit 5", "sleep 0.3; kill -9 $$", "sleep 0.3; exit 0"]
        agents = [await spawn(client, task) for task in tasks]
        pids = [(await details(client, agent))["pid"] for agent in agents]
        server.kill()
        async with asyncio.timeout(5):
            while any(runs(pid) for pid in pids):
                await asyncio.sleep(0.01)
        await asyncio.to_thread(server.start)
        ends = [await client.wait_agent(agent, timeout_secs=5) for agent in agents]
        assert [(end.exit_code, end.signal) for end in ends] == [(5, None), (None, 9), (0, None)]
        assert [end.status for end in ends] == [
            AgentStatus.FAILED,
            AgentStatus.FAILED,
            AgentStatus.COMPLETED,
        ]
        assert await client.read_agent_stdout(agents[0]) == b"out\n"
        # Stored by now, and so after another restart, which has nothing to hear from the keeper.
        await restart(server)
        again = [await client.wait_agent(agent, timeout_secs=5) for agent in agents]
        assert [(end.status, end.exit_code, end.signal) for end in again] == [
            (end.status, end.exit_code, end.signal) for end in ends
        ]


async def test_stop_that_was_under_way_is_carried_through_a_restart() -> None:
    async with restartable() as (server, client):
        agent = await spawn(client, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
        await read_more(client, agent, 6)
        await client.stop_agent(agent, grace_secs=1)
        await restart(server)
        end = await client.wait_agent(agent, timeout_secs=10)
        assert (end.status, end.signal) == (AgentStatus.TERMINATED, signal.SIGKILL)


async def test_follower_and_subscriber_and_waiter_see_a_restart_through() -> None:
    async with restartable() as (server, client):
        agent = await spawn(
            client,
            "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.005; done; exit 6",
        )
        statuses = await client.subscribe_status_updates(agent.id)
        logs = await client.stream_agent_logs(agent, from_offset=0)

        async def last_status() -> Any:
            async with statuses:
                return [update async for update in statuses][-1]

        async def all_output() -> bytes:
            found = b""
            async with logs:
                async for message in logs:
                    if message.stream_type is LogStreamType.STDOUT:
                        assert message.sequence == len(found)
                        found += message.data
            return found

        going = asyncio.gather(
            last_status(), all_output(), client.wait_agent(agent, timeout_secs=20)
        )
        await asyncio.sleep(0.3)  # in the middle of it
        await restart(server)
        update, output, end = await asyncio.wait_for(going, 20)
        assert (update.update_type, update.data["exit_code"]) == (StatusUpdateType.ERROR, 6)
        assert output == b"".join(b"line %d\n" % number for number in range(300))
        assert end.exit_code == 6


async def test_follower_of_an_agent_that_ends_while_there_is_no_server_gets_all() -> None:
    async with restartable() as (server, client):
        agent = await spawn(client, "echo before; sleep 0.5; echo after; exit 6")
        pid = (await details(client, agent))["pid"]
        logs = await client.stream_agent_logs(agent, from_offset=0)

        async def all_output() -> bytes:
            async with logs:
                return b"".join([message.data async for message in logs])

        following = asyncio.ensure_future(all_output())
        waiting = asyncio.ensure_future(client.wait_agent(agent, timeout_secs=20))
        await asyncio.sleep(0.1)
        server.kill()
        async with asyncio.timeout(5):
            while runs(pid):
                await asyncio.sleep(0.01)
        await asyncio.to_thread(server.start)
        assert await asyncio.wait_for(following, 20) == b"before\nafter\n"
        assert (await waiting).exit_code == 6


async def test_follower_gets_what_was_written_while_there_was_no_server() -> None:
    async with restartable() as (server, client):
        agent = await spawn(client, "echo before; sleep 0.5; echo after; read go")
        async with await client.stream_agent_logs(agent, from_offset=0) as logs:
            found = (await anext(logs)).data
            server.kill()
            output = server.state / "agents" / str(agent.id) / "stdout"
            async with asyncio.timeout(5):
                while b"after" not in output.read_bytes():
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(20):
                while found != b"before\nafter\n":
                    found += (await anext(logs)).data
        await client.kill_agent(agent)


async def test_agents_run_on_while_a_server_that_keeps_them_is_stopped_and_started() -> None:
    async with restartable("keep_agents = true") as (server, client):
        agent = await spawn(client, "read word; echo $word; exit 4")
        short = await spawn(client, "sleep 0.2; exit 8")
        keeper = server.keeper_pid()
        pid = (await details(client, agent))["pid"]
        assert await asyncio.to_thread(server.stop) == 0
        assert runs(pid)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.start)
        assert server.keeper_pid() == keeper
        assert (await client.wait_agent(short, timeout_secs=5)).exit_code == 8
        await client.write_agent_stdin(agent, b"hello\n")
        assert (await client.wait_agent(agent, timeout_secs=5)).exit_code == 4
        assert await client.read_agent_stdout(agent) == b"hello\n"


async def test_keeper_whose_agents_have_ended_goes_and_leaves_their_ends() -> None:
    async with restartable("keep_agents = true") as (server, client):
        agent = await spawn(client, "sleep 0.2; echo out; exit 8")
        keeper = server.keeper_pid()
        assert keeper is not None
        assert await asyncio.to_thread(server.stop) == 0
        async with asyncio.timeout(20):
            while runs(keeper):
                await asyncio.sleep(0.05)
        await asyncio.to_thread(server.start)
        assert (await client.wait_agent(agent, timeout_secs=5)).exit_code == 8
        assert await client.read_agent_stdout(agent) == b"out\n"
        await restart(server)
        assert (await client.wait_agent(agent, timeout_secs=5)).exit_code == 8


async def test_server_without_a_journal_waits_until_the_agents_of_the_one_before_are_gone() -> None:
    async with restartable("journal = false") as (server, client):
        agent = await spawn(client, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
        await read_more(client, agent, 6)
        pid = (await details(client, agent))["pid"]
        await restart(server)  # at once: the keeper is still ending it
        assert not runs(pid)
        assert await client.list_remote_agents() == []
        assert (
            await client.wait_agent(await spawn(client, "exit 4"), timeout_secs=5)
        ).exit_code == 4


async def test_server_that_ends_in_order_ends_its_agents_and_lists_them_afterwards() -> None:
    async with restartable() as (server, client):
        agent = await spawn(client, "exec sleep 60")
        pid = (await details(client, agent))["pid"]
        assert await asyncio.to_thread(server.stop) == 0
        assert not runs(pid)
        assert server.keeper_pid() is None
        await asyncio.to_thread(server.start)
        end = await client.wait_agent(agent, timeout_secs=5)
        assert (end.status, end.signal) == (AgentStatus.TERMINATED, signal.SIGTERM)


async def test_server_and_keeper_killed_agents_are_adopted_and_ends_not_made_up() -> None:
    async with restartable() as (server, client):
        silent = await spawn(client, "exec sleep 60")
        ended = await spawn(client, "exec sleep 60")
        pids = [(await details(client, agent))["pid"] for agent in (silent, ended)]
        server.kill_keeper()
        server.kill()
        os.kill(pids[1], signal.SIGKILL)
        async with asyncio.timeout(5):
            while runs(pids[1]):
                await asyncio.sleep(0.01)
        collect(pids[1])  # as an init would: its exit code is gone
        await asyncio.to_thread(server.start)
        end = await client.wait_agent(ended, timeout_secs=5)
        assert (end.status, end.exit_code, end.signal) == (AgentStatus.FAILED, None, None)
        assert await client.get_agent_status(silent) is AgentStatus.RUNNING
        await client.signal_agent(silent, "SIGUSR1")
        end = await client.wait_agent(silent, timeout_secs=5)
        # The new keeper is no parent of it: where the kernel does not say, nobody knows.
        assert end.exit_code is None
        assert end.signal in (None, signal.SIGUSR1)


async def test_agents_from_before_the_machine_was_restarted_are_not_looked_for() -> None:
    async with restartable() as (server, client):
        agent = await spawn(client, "exec sleep 60")
        server.kill_keeper()
        server.kill()
        (server.state / "boot_id").write_text("another start of the machine\n")
        await asyncio.to_thread(server.start)
        end = await client.wait_agent(agent, timeout_secs=5)
        assert (end.status, end.exit_code, end.signal) == (AgentStatus.FAILED, None, None)
        await restart(server)
        assert (await client.wait_agent(agent, timeout_secs=5)).status is AgentStatus.FAILED


async def test_agent_that_the_journal_does_not_know_is_ended() -> None:
    async with restartable() as (server, client):
        agent = await spawn(client, "exec sleep 60")
        pid = (await details(client, agent))["pid"]
        server.kill()
        with (
            contextlib.closing(sqlite3.connect(server.state / "journal.sqlite")) as journal,
            journal,
        ):
            journal.execute("DELETE FROM agents")  # as when a spawn was given up
        await asyncio.to_thread(server.start)
        assert await client.list_remote_agents() == []
        async with asyncio.timeout(5):
            while runs(pid):
                await asyncio.sleep(0.01)
        assert os.listdir(server.state / "agents") == []


def collect(pid: int) -> None:
    """Take the exit status of a process that was inherited, if it is there to be taken."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
