"""Every operation of the client, against the real server and real processes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from descartes_fast import (
    AgentConfig,
    AgentError,
    AgentInfo,
    AgentStatus,
    InvalidContext,
    InvalidState,
    LogStreamMessage,
    LogStreamType,
    NotFound,
    OutputGone,
    PauseMode,
    ServerBusy,
    SpawnFailed,
    StatusUpdate,
    Subscription,
    WouldBlock,
    ZmqClient,
    ZmqOutputStream,
    connect,
)
from descartes_fast.server import ZmqAgentServer
from scripted_peer import until_async

StartServer = Callable[..., Awaitable[ZmqAgentServer]]

OUT, ERR = LogStreamType.STDOUT, LogStreamType.STDERR
READY = "echo ready; "


def shell(task: str, name: str = "test") -> AgentConfig:
    return AgentConfig(name=name, model_backend="sh", task=task)


def python(task: str) -> AgentConfig:
    return AgentConfig(name="test", model_backend="py", task=task)


async def spawn_ready(client: ZmqClient, task: str) -> AgentInfo:
    """Spawn a script that has said that it is ready, so that its traps are set."""
    agent = await client.spawn_remote(shell(task))
    async with await client.stream_agent_logs(agent, from_offset=0) as stream:
        async with asyncio.timeout(10):
            await anext(stream)
    return agent


async def everything(
    stream: Subscription[LogStreamMessage],
) -> dict[LogStreamType, bytes]:
    """Return both streams to their end, having checked that each is without a gap."""
    output = {OUT: b"", ERR: b""}
    async with asyncio.timeout(30):
        async for message in stream:
            kind = message.stream_type
            assert message.sequence == len(output[kind])
            output[kind] += message.data
    return output


async def test_spawned_agent_is_listed_and_found(client: ZmqClient) -> None:
    agent = await client.spawn_remote(shell("sleep 60"), metadata={"team": "blue"})
    assert isinstance(agent.id, UUID)
    assert agent.status == AgentStatus.RUNNING
    assert [info.id for info in await client.list_remote_agents()] == [agent.id]
    assert await client.list_remote_agents("running", limit=1)
    assert await client.list_remote_agents(AgentStatus.COMPLETED) == []
    found = await client.get_remote_agent(str(agent.id))
    assert found is not None
    assert (found.id, found.name, found.task) == (agent.id, "test", "sleep 60")
    assert await client.get_remote_agent(uuid4()) is None
    assert await client.get_agent_status(agent) == "running"
    details = await client.control_agent(agent, "get_status")
    assert details.data["metadata"] == {"team": "blue"}
    await client.kill_agent(agent)
    await client.wait_agent(agent, 10)


async def test_end_tells_code_or_signal(client: ZmqClient) -> None:
    for task, status, code, signum in [
        ("exit 0", "completed", 0, None),
        ("exit 42", "failed", 42, None),
        ("kill -SEGV $$", "failed", None, signal.SIGSEGV),
    ]:
        end = await client.wait_agent(await client.spawn_remote(shell(task)), 10)
        assert (end.status, end.exit_code, end.signal) == (status, code, signum), task
        assert end.info is not None
        assert end.info.status == status


async def test_stop_and_kill_terminate(client: ZmqClient) -> None:
    stopped = await spawn_ready(client, READY + "sleep 60")
    await client.stop_agent(stopped)
    assert (await client.wait_agent(stopped, 10)).status == "terminated"
    stubborn = await spawn_ready(client, "trap '' TERM; " + READY + "while :; do sleep 1; done")
    await client.stop_agent(stubborn, grace_secs=0.2)
    end = await client.wait_agent(stubborn, 10)
    assert (end.status, end.signal) == ("terminated", signal.SIGKILL)
    killed = await spawn_ready(client, READY + "sleep 60")
    await client.kill_agent(killed)
    assert (await client.wait_agent(killed, 10)).signal == signal.SIGKILL


@pytest.mark.parametrize("word", ["SIGUSR1", signal.SIGUSR1, int(signal.SIGUSR1)])
async def test_signal_reaches_the_process(client: ZmqClient, word: Any) -> None:
    agent = await spawn_ready(
        client, "trap 'exit 9' USR1; " + READY + "while :; do sleep 0.1; done"
    )
    await client.signal_agent(agent, word)
    assert (await client.wait_agent(agent, 10)).exit_code == 9


async def test_unknown_signal_is_refused(client: ZmqClient) -> None:
    agent = await client.spawn_remote(shell("sleep 60"))
    for word in ("SIGNONSENSE", 0, 4711, -9):
        with pytest.raises(InvalidContext):
            await client.signal_agent(agent, word)
    await client.kill_agent(agent)
    await client.wait_agent(agent, 10)


async def test_pause_and_resume(client: ZmqClient) -> None:
    agent = await client.spawn_remote(shell("while :; do echo x; sleep 0.01; done"))
    await client.pause_agent(agent)
    assert await client.get_agent_status(agent) == "paused"
    info = await client.get_remote_agent(agent)
    assert info is not None
    assert (info.pause_mode, info.paused_at is not None) == (PauseMode.FORCED, True)
    await client.read_agent_stdout(agent)
    await asyncio.sleep(0.1)
    assert await client.read_agent_stdout(agent) is None
    await client.resume_agent(agent)
    assert await client.get_agent_status(agent) == "running"

    async def reads() -> bool:
        return await client.read_agent_stdout(agent) is not None

    await until_async(reads, True)
    await client.kill_agent(agent)
    await client.wait_agent(agent, 10)


async def test_what_an_ended_agent_cannot_do_is_a_state(client: ZmqClient) -> None:
    agent = await client.spawn_remote(shell("true"))
    await client.wait_agent(agent, 10)
    for call in (
        client.pause_agent(agent),
        client.resume_agent(agent),
        client.write_agent_stdin(agent, b"x"),
        client.signal_agent(agent, "SIGINT"),
    ):
        with pytest.raises(InvalidState):
            await call


async def test_stdin_and_stdout_carry_any_bytes(client: ZmqClient) -> None:
    every_byte = bytes(range(256)) * 1500
    agent = await client.spawn_remote(shell("cat"))
    await client.write_agent_stdin(agent, "grüße\n".encode())
    await client.write_agent_stdin(agent, every_byte)
    await client.write_agent_stdin(agent, b"", close=True)
    end = await client.wait_agent(agent, 10)
    assert end.exit_code == 0
    output = b""
    while (data := await client.read_agent_stdout(agent)) is not None:
        output += data
    assert output == "grüße\n".encode() + every_byte
    assert await client.read_agent_stderr(agent) is None


async def test_stdin_of_an_agent_that_does_not_read_would_block(client: ZmqClient) -> None:
    agent = await client.spawn_remote(shell("sleep 60"))

    async def fill() -> None:
        for _ in range(100):
            await client.write_agent_stdin(agent, b"x" * 200_000)

    with pytest.raises(WouldBlock):
        await fill()
    with pytest.raises(WouldBlock) as caught:
        await client.write_agent_stdin(agent, b"\xff" * 3_000_000)
    assert 0 <= caught.value.bytes_written < 3_000_000
    await client.kill_agent(agent)
    await client.wait_agent(agent, 10)


async def test_both_streams_are_followed_from_the_start_to_the_last_byte(
    client: ZmqClient,
) -> None:
    task = "for i in $(seq 500); do echo out $i; echo err $i >&2; done; printf no-newline"
    agent = await client.spawn_remote(shell(task))
    output = await everything(await client.stream_agent_logs(agent, from_offset=0))
    assert output[OUT] == b"".join(b"out %d\n" % n for n in range(1, 501)) + b"no-newline"
    assert output[ERR] == b"".join(b"err %d\n" % n for n in range(1, 501))
    assert await everything(await client.stream_agent_logs(agent, from_offset=0)) == output


async def test_flood_is_followed_without_a_missing_byte(client: ZmqClient) -> None:
    count = 300_000
    agent = await client.spawn_remote(shell(f"seq {count}"))
    stream = await client.stream_agent_logs(agent, from_offset=0)
    output = await everything(stream)
    assert output[OUT] == b"".join(b"%d\n" % n for n in range(1, count + 1))
    assert stream.dropped == 0


async def test_many_floods_at_once_are_each_complete(client: ZmqClient) -> None:
    agents = await asyncio.gather(
        *(client.spawn_remote(shell(f"seq {n} 20000")) for n in range(1, 11))
    )
    streams = [await client.stream_agent_logs(agent, from_offset=0) for agent in agents]
    outputs = await asyncio.gather(*(everything(stream) for stream in streams))
    for n, output in enumerate(outputs, 1):
        assert output[OUT] == b"".join(b"%d\n" % number for number in range(n, 20001))


async def test_all_agents_are_followed_by_one_subscription(client: ZmqClient) -> None:
    stream = await client.stream_agent_logs()
    agents = await asyncio.gather(
        *(client.spawn_remote(shell(f"echo hello {n}; echo again {n}")) for n in range(20))
    )
    expected = {agent.id: b"hello %d\nagain %d\n" % (n, n) for n, agent in enumerate(agents)}
    seen: dict[UUID, bytes] = {}
    async with asyncio.timeout(10):
        while seen != expected:
            message = await anext(stream)
            seen[message.agent_id] = seen.get(message.agent_id, b"") + message.data


async def test_trimmed_output_is_told_and_the_rest_is_read(start_server: StartServer) -> None:
    server = await start_server(output_limit_bytes=200_000)
    async with connect(server.endpoint) as client:
        agent = await client.spawn_remote(shell("seq 200000"))
        await client.wait_agent(agent, 20)
        stream = await client.stream_agent_logs(agent, from_offset=0)
        with pytest.raises(OutputGone) as caught:
            await anext(stream)
        assert caught.value.start == 0
        position, data = caught.value.end, b""
        async for message in stream:
            assert message.sequence == position + len(data)
            data += message.data
        whole = b"".join(b"%d\n" % n for n in range(1, 200_001))
        assert data == whole[position:]
        assert len(data) >= 100_000


async def test_query_finds_lines(client: ZmqClient) -> None:
    agent = await client.spawn_remote(shell("seq 100; echo problem 7 >&2"))
    await client.wait_agent(agent, 10)
    found = await client.query_agent_output(agent, "stdout", filter="^7", limit=2, offset=1)
    assert (list(found.lines), found.has_more) == (["70", "71"], True)
    both = await client.query_agent_output(agent, ZmqOutputStream.BOTH, filter="7$")
    assert both.lines[-1] == "problem 7"
    with pytest.raises(InvalidContext):
        await client.query_agent_output(agent, "stdout", filter="(")
    with pytest.raises(NotFound):
        await client.query_agent_output(uuid4(), "stdout")


async def test_batch_tells_each_result(client: ZmqClient) -> None:
    agents = [await client.spawn_remote(shell("sleep 60")) for _ in range(3)]
    stranger = uuid4()
    answer = await client.batch_control([*agents, stranger], "kill")
    assert (answer.successful, answer.failed, answer.success) == (3, 1, False)
    assert [result.agent_id for result in answer.results] == [*(a.id for a in agents), stranger]
    for agent in agents:
        assert (await client.wait_agent(agent, 10)).status == "terminated"


async def test_custom_actions(server: ZmqAgentServer, client: ZmqClient) -> None:
    async def double(agent: AgentInfo, params: Any) -> Any:
        return {"agent": agent.name, "twice": params["n"] * 2}

    server.register_action("double", double)
    agent = await client.spawn_remote(shell("sleep 60", name="worker"))
    answer = await client.send_action_to_agent(agent, "double", {"n": 21})
    assert answer.data == {"agent": "worker", "twice": 42}
    echoed = await client.send_action_to_agent(agent, "echo", {"a": [1, None]}, timeout_secs=5)
    assert echoed.success
    with pytest.raises(AgentError):
        await client.send_action_to_agent(agent, "nonsense")
    await client.kill_agent(agent)
    await client.wait_agent(agent, 10)


async def test_health_tells_who_and_what(server: ZmqAgentServer, client: ZmqClient) -> None:
    answer = await client.health_check()
    assert answer.healthy
    assert answer.metadata is not None
    assert answer.metadata["server_id"] == server.server_id
    assert {"idempotent", "offsets", "snapshot"} <= set(answer.metadata["features"].split(","))


async def test_spawn_that_fails_says_why(client: ZmqClient) -> None:
    with pytest.raises((InvalidContext, SpawnFailed)):
        await client.spawn_remote(AgentConfig(name="a", model_backend="no-such-backend"))
    with pytest.raises(AgentError):
        await client.spawn_remote(
            AgentConfig(
                name="a", model_backend="sh", task="true", environment={"LD_PRELOAD": "/x.so"}
            )
        )
    assert await client.list_remote_agents() == [] or all(
        info.status.is_terminal for info in await client.list_remote_agents()
    )


async def test_repeated_spawn_under_one_id_is_one_agent(client: ZmqClient) -> None:
    first, second = await asyncio.gather(
        client.spawn_remote(shell("sleep 60"), request_id="once"),
        _after(0.05, lambda: client.spawn_remote(shell("sleep 60"), request_id="twice")),
    )
    again = await client.spawn_remote(shell("sleep 60"), request_id="once")
    assert again.id == first.id
    assert second.id != first.id
    for agent in (first, second):
        await client.kill_agent(agent)
        await client.wait_agent(agent, 10)


async def test_spawn_many_returns_agents_and_errors_in_order(start_server: StartServer) -> None:
    server = await start_server(max_agents=5)
    async with connect(server.endpoint) as client:
        progress: list[tuple[int, int]] = []
        configs = [shell("sleep 60", name=str(n)) for n in range(8)]
        results = await client.spawn_many(
            configs, max_in_flight=2, progress=lambda done, total: progress.append((done, total))
        )
        agents = [result for result in results if isinstance(result, AgentInfo)]
        refused = [result for result in results if not isinstance(result, AgentInfo)]
        assert len(agents) == 5
        assert all(isinstance(error, ServerBusy) for error in refused)
        assert [result.name for result in results if isinstance(result, AgentInfo)] == [
            config.name for config, r in zip(configs, results, strict=True) if r in agents
        ]
        assert progress[-1] == (8, 8)
        await client.batch_control(agents, "kill")
        for agent in agents:
            await client.wait_agent(agent, 10)


async def test_hundred_short_agents_all_end_with_their_codes(client: ZmqClient) -> None:
    results = await client.spawn_many(shell(f"exit {n % 7}") for n in range(100))
    agents = [result for result in results if isinstance(result, AgentInfo)]
    assert len(agents) == 100
    ends = await asyncio.gather(*(client.wait_agent(agent, 30) for agent in agents))
    assert [end.exit_code for end in ends] == [n % 7 for n in range(100)]


async def test_status_of_all_agents_is_a_snapshot_and_every_change(client: ZmqClient) -> None:
    before = await client.spawn_remote(shell("sleep 60"))
    stream = await client.subscribe_status_updates()
    first = await anext(stream)
    assert (first.agent_id, first.status, first.data["snapshot"]) == (before.id, "running", True)
    after = await client.spawn_remote(shell("echo hi; exit 3"))
    seen: list[StatusUpdate] = []
    async with asyncio.timeout(10):
        while not seen or seen[-1].status != "failed":
            update = await anext(stream)
            if update.agent_id == after.id and update.update_type != "output_available":
                seen.append(update)
    assert [update.status for update in seen] == ["initializing", "running", "failed"]
    assert [update.data["seq"] for update in seen] == [1, 2, 3]
    assert seen[-1].data["exit_code"] == 3
    assert seen[-1].data["stdout_bytes"] == 3
    await client.kill_agent(before)
    await client.wait_agent(before, 10)


async def test_status_of_one_agent_ends_with_it(client: ZmqClient) -> None:
    agent = await client.spawn_remote(shell("sleep 0.2"))
    stream = await client.subscribe_status_updates(agent)
    async with asyncio.timeout(10):
        updates = [update async for update in stream]
    assert updates[0].data["snapshot"]
    assert updates[-1].update_type == "completed"


async def test_snapshots_taken_while_agents_come_and_go_miss_no_end(client: ZmqClient) -> None:
    """Whoever subscribes in the middle of it all ends up knowing every agent's last status."""
    streams = []
    async with asyncio.TaskGroup() as group:
        tasks = (shell(f"sleep 0.0{n % 9}") for n in range(60))
        spawning = group.create_task(client.spawn_many(tasks, max_in_flight=8))
        for _ in range(10):
            streams.append(await client.subscribe_status_updates())
            await asyncio.sleep(0.01)
    results = spawning.result()
    assert all(isinstance(result, AgentInfo) for result in results)
    for stream in streams:
        known: dict[UUID, AgentStatus] = {}
        async with asyncio.timeout(20):
            while len(known) < 60 or not all(status.is_terminal for status in known.values()):
                update = await anext(stream)
                if update.status is not None:
                    assert not known.get(update.agent_id, AgentStatus.IDLE).is_terminal
                    known[update.agent_id] = update.status
        assert stream.dropped == 0


async def test_wait_without_published_status_asks(start_server: StartServer) -> None:
    server = await start_server(enable_status_updates=False)
    async with connect(server.endpoint) as client:
        agent = await client.spawn_remote(shell("echo a; sleep 0.3; echo b"))
        stream = await client.stream_agent_logs(agent, from_offset=0)
        assert (await client.wait_agent(agent, 10)).exit_code == 0
        assert (await everything(stream))[OUT] == b"a\nb\n"
        updates = await client.subscribe_status_updates(agent)
        assert [update.status async for update in updates] == ["completed"]


async def test_server_restart_is_survived_by_the_client(
    start_server: StartServer, tmp_path: Any
) -> None:
    short = f"ipc:///tmp/dfast-{uuid4().hex[:8]}"
    settings = {"endpoint": short + "-c", "pub_endpoint": short + "-e"}
    server = await start_server(**settings)
    config = {"reconnect_delay_secs": 0.1, "max_reconnect_attempts": 100}
    async with connect(server.endpoint, **config) as client:
        old = await client.spawn_remote(shell("sleep 60"))
        stream = await client.subscribe_status_updates()
        assert (await anext(stream)).agent_id == old.id
        await server.aclose()
        await start_server(**settings)
        agent = await client.spawn_remote(shell("sleep 60"))
        async with asyncio.timeout(10):
            async for update in stream:
                if update.agent_id == agent.id:
                    break
        with pytest.raises(NotFound):
            await client.get_agent_status(old)
        await client.kill_agent(agent)
        assert (await client.wait_agent(agent, 10)).status == "terminated"


async def test_server_stopped_mid_stream_leaves_nobody_waiting(start_server: StartServer) -> None:
    server = await start_server()
    config = {"reconnect_delay_secs": 0.1, "max_reconnect_attempts": 2}
    async with connect(server.endpoint, **config) as client:
        agent = await client.spawn_remote(shell("while :; do echo x; sleep 0.05; done"))
        stream = await client.stream_agent_logs(agent, from_offset=0)
        waiting = asyncio.ensure_future(client.wait_agent(agent))
        await anext(stream)
        await server.aclose()
        started = time.monotonic()

        async def read_to_the_end() -> None:
            async for _ in stream:
                pass
            raise NotFound("the stream ended with the agent")

        with pytest.raises(AgentError):
            await asyncio.wait_for(read_to_the_end(), 10)
        async with asyncio.timeout(10):
            await asyncio.gather(waiting, return_exceptions=True)
        assert time.monotonic() - started < 5


async def _after(secs: float, make: Callable[[], Awaitable[AgentInfo]]) -> AgentInfo:
    await asyncio.sleep(secs)
    return await make()
