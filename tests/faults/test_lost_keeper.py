"""The keeper is killed: another one takes the agents over, and nothing of them is lost."""

# ruff: noqa: ASYNC110 - other processes have no events to wait for
from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import (
    AgentConfig,
    AgentExit,
    AgentInfo,
    AgentStatus,
    ControlCommandType,
    LogStreamType,
    ServerBusy,
    ZmqClient,
    connect,
)
from descartes_fast.server import keeper_loss, keeper_process, taking_over
from descartes_fast.server.keeper_link import KeeperLink
from descartes_fast.server.keeper_messages import Adoption, OutputGrew
from faults.keeper_process import keeper_pid

if TYPE_CHECKING:
    from conftest import StartServer
    from descartes_fast.server import ZmqAgentServer

pytestmark = pytest.mark.leaves_orphans

LINES = 400
WRITER = f"""
import sys, time
for number in range({LINES}):
    print("line", number, flush=True)
    time.sleep(0.002)
sys.exit(7)
"""


async def spawn(client: ZmqClient, task: str, backend: str = "sh") -> AgentInfo:
    return await client.spawn_remote(AgentConfig(model_backend=backend, task=task))


async def end_of(client: ZmqClient, agent: AgentInfo) -> AgentExit:
    return await client.wait_agent(agent, timeout_secs=15)


async def output_of(client: ZmqClient, agent: AgentInfo) -> bytes:
    found = b""
    async with await client.stream_agent_logs(agent, from_offset=0) as messages:
        async for message in messages:
            if message.stream_type is LogStreamType.STDOUT:
                assert message.sequence == len(found)
                found += message.data
    return found


async def until_replaced(client: ZmqClient, before: int) -> None:
    """Wait until a keeper other than ``before`` does its work."""
    async with asyncio.timeout(10):
        while running_keeper() in (0, before):
            await asyncio.sleep(0.01)
        while not (await client.health_check()).healthy:
            await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)


def running_keeper() -> int:
    try:
        return keeper_pid()
    except ValueError:  # none, or the old one beside the new one
        return 0


@asynccontextmanager
async def keeper_replaced(client: ZmqClient) -> AsyncIterator[int]:
    """Kill the keeper, do what the block does, and wait for the new one."""
    before = keeper_pid()
    os.kill(before, signal.SIGKILL)
    yield before
    await until_replaced(client, before)


async def test_agents_of_a_lost_keeper_lose_no_line_and_keep_their_exit_codes(
    client: ZmqClient,
) -> None:
    agents = [await spawn(client, WRITER, "py") for _ in range(4)]
    expected = b"".join(b"line %d\n" % number for number in range(LINES))
    for _ in range(2):
        await asyncio.sleep(0.2)  # they are in the middle of it
        async with keeper_replaced(client):
            pass
    for agent in agents:
        end = await end_of(client, agent)
        assert (end.status, end.exit_code, end.signal) == (AgentStatus.FAILED, 7, None)
        assert await output_of(client, agent) == expected


async def test_stdin_is_written_and_closed_after_the_keeper_was_replaced(
    client: ZmqClient,
) -> None:
    agent = await spawn(client, "cat; echo the end; exit 3")
    await client.write_agent_stdin(agent, b"one\n")
    async with asyncio.timeout(5):
        while await client.read_agent_stdout(agent) is None:
            await asyncio.sleep(0.01)
    async with keeper_replaced(client):
        pass
    await client.write_agent_stdin(agent, b"two\n")
    await client.write_agent_stdin(agent, b"three\n", close=True)
    assert (await end_of(client, agent)).exit_code == 3
    assert await output_of(client, agent) == b"one\ntwo\nthree\nthe end\n"


async def test_agent_that_waits_for_its_readers_goes_on_under_the_new_keeper(
    start_server: StartServer,
) -> None:
    limit = 64 * 1024
    server = await start_server(output_policy="wait", output_limit_bytes=limit)
    async with connect(server.endpoint) as client, asyncio.timeout(30):
        numbers = 60_000
        agent = await spawn(client, f"for n in range({numbers}): print(n)", "py")
        while (await details(client, agent))["stdout_bytes"] < limit:
            await asyncio.sleep(0.01)
        os.kill(keeper_pid(), signal.SIGSTOP)  # it does not hear what is read
        found = b""
        while len(found) < limit:
            found += await client.read_agent_stdout(agent) or b""
        async with keeper_replaced(client):
            pass
        while not (await client.get_agent_status(agent)).is_terminal:
            found += await client.read_agent_stdout(agent) or b""
        while more := await client.read_agent_stdout(agent):
            found += more
        assert found == b"".join(b"%d\n" % number for number in range(numbers))


async def test_disk_for_all_output_is_as_limited_under_the_new_keeper(
    start_server: StartServer,
) -> None:
    limit, written = 4 * 1024 * 1024, 16 * 1024 * 1024
    server = await start_server(state_limit_bytes=limit)
    async with connect(server.endpoint) as client, asyncio.timeout(30):
        agent = await spawn(client, f"read go; head -c {written} /dev/zero; read go")
        async with keeper_replaced(client):
            pass
        await client.write_agent_stdin(agent, b"go\n")
        while (await details(client, agent))["stdout_bytes"] < written:
            await asyncio.sleep(0.01)
        data = (
            await client.control_agent(
                agent, ControlCommandType.QUERY_OUTPUT, {"stderr": False, "max_lines": 1}
            )
        ).data
        assert written - data["stdout_start"] <= limit


async def test_duplicates_that_found_no_descriptor_are_asked_for_again(
    start_server: StartServer,
) -> None:
    server = await start_server(fd_reserve=0, status_update_interval_secs=0.05)
    async with connect(server.endpoint) as client:
        await end_of(client, await spawn(client, "true"))
        before = len(open_descriptors())
        with descriptors_left(3):
            few = len(open_descriptors())
            agent = await spawn(client, WRITER, "py")
            assert len(open_descriptors()) == few
        async with asyncio.timeout(5):
            while len(open_descriptors()) < before + 4:
                await asyncio.sleep(0.01)
        async with keeper_replaced(client):
            pass
        assert (await end_of(client, agent)).exit_code == 7
        assert (await output_of(client, agent)).count(b"\n") == LINES


def open_descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Leave this process only so many free descriptors for the length of a block."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(open_descriptors())
    taken = [os.open(os.devnull, os.O_RDONLY)]
    while taken[-1] <= highest:
        taken.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + count, limits[1]))
    try:
        os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for number in taken:
            os.close(number)


async def test_agent_that_ends_while_there_is_no_keeper_has_its_exit_code_or_says_it_is_unknown(
    client: ZmqClient,
) -> None:
    agents = [await spawn(client, "exec sleep 60") for _ in range(2)]
    async with keeper_replaced(client):
        for agent in agents:
            pid = int((await details(client, agent))["pid"])
            os.kill(pid, signal.SIGTERM)
    for agent in agents:
        end = await end_of(client, agent)
        assert end.status is AgentStatus.FAILED
        assert end.exit_code is None
        assert end.signal in (None, signal.SIGTERM)  # nobody saw it, or the kernel still knows


async def test_agents_are_stopped_killed_and_signalled_by_the_new_keeper(
    client: ZmqClient,
) -> None:
    stubborn = await spawn(client, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    obedient = await spawn(client, "sleep 60")
    victim = await spawn(client, "sleep 60")
    awaited = await spawn(client, "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done")
    for agent in (stubborn, awaited):
        await first_output(client, agent)
    async with keeper_replaced(client):
        pass
    await client.stop_agent(stubborn, grace_secs=0.3)
    await client.stop_agent(obedient)
    await client.kill_agent(victim)
    await client.signal_agent(awaited, "SIGUSR1")
    ends = {agent.id: await end_of(client, agent) for agent in (stubborn, obedient, victim)}
    assert {end.status for end in ends.values()} == {AgentStatus.TERMINATED}
    assert [ends[agent.id].signal for agent in (stubborn, obedient, victim)] == [9, 15, 9]
    assert (await end_of(client, awaited)).exit_code == 9


async def test_stop_that_was_under_way_has_the_rest_of_its_grace_under_the_new_keeper(
    client: ZmqClient,
) -> None:
    stubborn = await spawn(client, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    patient = await spawn(client, "trap '' TERM; echo ready; read word; exit 5")
    for agent in (stubborn, patient):
        await first_output(client, agent)
    began = asyncio.get_running_loop().time()
    await client.stop_agent(stubborn, grace_secs=2)
    await client.stop_agent(patient, grace_secs=60)
    async with keeper_replaced(client):
        pass
    end = await end_of(client, stubborn)
    assert (end.status, end.signal) == (AgentStatus.TERMINATED, 9)
    assert 1.9 < asyncio.get_running_loop().time() - began < 4
    await client.write_agent_stdin(patient, b"go\n")
    end = await end_of(client, patient)
    assert (end.status, end.exit_code) == (AgentStatus.TERMINATED, 5)


async def test_paused_agent_stays_paused_under_the_new_keeper(client: ZmqClient) -> None:
    agent = await spawn(client, "echo ready; read word; echo $word")
    await first_output(client, agent)
    await client.pause_agent(agent)
    async with keeper_replaced(client):
        pass
    assert await client.get_agent_status(agent) is AgentStatus.PAUSED
    await client.write_agent_stdin(agent, b"hello\n")
    await client.resume_agent(agent)
    assert (await end_of(client, agent)).exit_code == 0
    assert await output_of(client, agent) == b"ready\nhello\n"


async def test_children_of_an_agent_end_with_it_under_the_new_keeper(client: ZmqClient) -> None:
    agent = await spawn(client, "setsid sleep 300 & echo $!; read go")
    child = int(await first_output(client, agent))
    async with keeper_replaced(client):
        pass
    await client.write_agent_stdin(agent, b"", close=True)
    await end_of(client, agent)
    async with asyncio.timeout(5):
        while runs(child):
            await asyncio.sleep(0.01)


async def test_spawns_are_refused_until_there_is_a_new_keeper_and_health_says_so(
    client: ZmqClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "slow.py"
    real = keeper_process._PROGRAM
    go = tmp_path / "go"
    program.write_text(
        f"import os, runpy, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        f"runpy.run_path({str(real)!r}, run_name='__main__')\n"
    )
    agent = await spawn(client, "sleep 60")
    before = keeper_pid()
    monkeypatch.setattr(keeper_process, "_PROGRAM", program)
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(5):
        while (health := await client.health_check()).healthy:
            await asyncio.sleep(0.01)
    assert health.metadata is not None
    assert "keeper" in health.metadata["reason"]
    with pytest.raises(ServerBusy, match="keeper"):
        await spawn(client, "true")
    killing = asyncio.create_task(client.kill_agent(agent))  # waits for the new one
    await asyncio.sleep(0.05)
    assert not killing.done()
    go.touch()
    await until_replaced(client, before)
    await killing
    assert (await end_of(client, agent)).status is AgentStatus.TERMINATED
    assert (await end_of(client, await spawn(client, "exit 4"))).exit_code == 4


async def test_keeper_that_is_told_to_end_ends_its_agents_and_is_replaced(
    client: ZmqClient,
) -> None:
    agent = await spawn(client, "exec sleep 60")
    before = keeper_pid()
    os.kill(before, signal.SIGTERM)
    end = await end_of(client, agent)
    assert (end.status, end.signal) == (AgentStatus.FAILED, signal.SIGTERM)
    await until_replaced(client, before)
    assert (await end_of(client, await spawn(client, "exit 4"))).exit_code == 4


async def test_agents_wait_while_no_keeper_can_be_started(
    client: ZmqClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await spawn(client, "read word; exit 6")
    before, program, tries = keeper_pid(), keeper_process._PROGRAM, 0
    start = keeper_process.KeeperPlace.start

    def count(*arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        return start(*arguments)

    monkeypatch.setattr(keeper_process.KeeperPlace, "start", count)
    monkeypatch.setattr(keeper_process, "_PROGRAM", tmp_path / "missing.py")
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(10):
        while tries < 6:  # more than the losses that are too many
            await asyncio.sleep(0.01)
    monkeypatch.setattr(keeper_process, "_PROGRAM", program)
    await until_replaced(client, before)
    await client.write_agent_stdin(agent, b"go\n")
    end = await end_of(client, agent)
    assert (end.status, end.exit_code) == (AgentStatus.FAILED, 6)


async def test_keeper_that_cannot_be_replaced_ends_the_agents(
    client: ZmqClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await spawn(client, "echo before; exec sleep 60")
    await first_output(client, agent)
    pid = int((await details(client, agent))["pid"])
    monkeypatch.setattr(keeper_process, "_PROGRAM", tmp_path / "missing.py")
    monkeypatch.setattr(keeper_loss, "_START_SECS", 0.3)
    os.kill(keeper_pid(), signal.SIGKILL)
    end = await end_of(client, agent)
    assert (end.status, end.exit_code, end.signal) == (AgentStatus.FAILED, None, None)
    assert not runs(pid)
    assert await output_of(client, agent) == b"before\n"
    health = await client.health_check()
    assert not health.healthy
    assert "keeper" in (health.metadata or {})["reason"]
    with pytest.raises(ServerBusy):
        await spawn(client, "true")


async def test_agent_that_no_keeper_has_room_for_at_first_is_taken_over_and_one_for_ever_killed(
    client: ZmqClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = await spawn(client, "read word; exit 6")
    unlucky = await spawn(client, "setsid sleep 60 & echo $!; exec sleep 60")
    pids = [int((await details(client, unlucky))["pid"]), int(await first_output(client, unlucky))]
    refusals = {patient.id: 3, unlucky.id: 1_000_000}
    adopt = KeeperLink.adopt

    async def adopted(self: KeeperLink, adoption: Adoption) -> OutputGrew:
        refusals[adoption.agent_id] -= 1
        if refusals[adoption.agent_id] >= 0:
            raise ServerBusy("no descriptor is free")
        return await adopt(self, adoption)

    monkeypatch.setattr(KeeperLink, "adopt", adopted)
    monkeypatch.setattr(taking_over, "_ADOPT_SECS", 1)
    async with keeper_replaced(client):
        pass
    end = await end_of(client, unlucky)
    assert (end.status, end.exit_code, end.signal) == (AgentStatus.FAILED, None, None)
    async with asyncio.timeout(5):
        while any(map(runs, pids)):
            await asyncio.sleep(0.01)
    await client.write_agent_stdin(patient, b"go\n")
    assert (await end_of(client, patient)).exit_code == 6


async def test_keeper_that_is_lost_again_and_again_is_given_up(client: ZmqClient) -> None:
    agent = await spawn(client, "exec sleep 60")
    for _ in range(4):
        async with keeper_replaced(client):
            pass
        assert await client.get_agent_status(agent) is AgentStatus.RUNNING
    os.kill(keeper_pid(), signal.SIGKILL)
    assert (await end_of(client, agent)).status is AgentStatus.FAILED
    assert not (await client.health_check()).healthy


async def test_server_closes_in_order_right_after_its_keeper_was_lost(
    server: ZmqAgentServer,
) -> None:
    async with connect(server.endpoint) as client:
        agent = await spawn(client, "exec sleep 60")
        pid = int((await details(client, agent))["pid"])
    os.kill(keeper_pid(), signal.SIGKILL)
    async with asyncio.timeout(20):
        await server.aclose()
    assert not runs(pid)


async def details(client: ZmqClient, agent: AgentInfo) -> dict[str, Any]:
    response = await client.control_agent(agent, ControlCommandType.GET_STATUS)
    data: dict[str, Any] = response.data
    return data


async def first_output(client: ZmqClient, agent: AgentInfo) -> bytes:
    async with await client.stream_agent_logs(agent, from_offset=0) as messages:
        async for message in messages:
            return message.data
    raise AssertionError("it ended and has said nothing")


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
