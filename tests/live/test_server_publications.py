"""What a server publishes: status in order, logs without a hole, the end of an agent last."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
import zmq

from descartes_fast import LogStreamMessage, LogStreamType, StatusUpdate, StatusUpdateType
from raw_peers import Subscriber, peer, raw_socket, subscriber

if TYPE_CHECKING:
    from conftest import StartServer
    from descartes_fast.server import ZmqAgentServer

EVERYTHING = ""
NIL_TOPIC = "status/00000000-0000-0000-0000-000000000000"


def logs_of(
    messages: list[StatusUpdate | LogStreamMessage], stream: LogStreamType
) -> list[LogStreamMessage]:
    return [
        message
        for message in messages
        if isinstance(message, LogStreamMessage) and message.stream_type is stream
    ]


def states_of(messages: list[StatusUpdate | LogStreamMessage]) -> list[StatusUpdate]:
    return [
        message
        for message in messages
        if isinstance(message, StatusUpdate)
        and message.update_type is not StatusUpdateType.OUTPUT_AVAILABLE
    ]


async def test_life_of_an_agent_is_published_in_order_with_rising_seq(
    server: ZmqAgentServer,
) -> None:
    async with peer(server.endpoint) as asking, subscriber(server.pub_endpoint, "status/") as heard:
        agent = await asking.spawn("read x; exit 3")
        await asking.data(agent, "pause")
        await asking.data(agent, "resume")
        await asking.data(agent, "write_stdin", {"close": True})
        found = states_of(await heard.until_end_of(agent.id))
        pid = (await asking.data(agent, "get_status"))["pid"]
    assert [(update.update_type.value, update.status.value) for update in found] == [
        ("status_changed", "initializing"),
        ("status_changed", "running"),
        ("status_changed", "paused"),
        ("status_changed", "running"),
        ("error", "failed"),
    ]
    assert [update.data for update in found] == [
        {"seq": 1},
        {"seq": 2, "pid": pid},
        {"seq": 3, "mode": "forced"},
        {"seq": 4, "pid": pid},
        {"seq": 5, "exit_code": 3, "signal": None, "stdout_bytes": 0, "stderr_bytes": 0},
    ]
    assert found[-1].message == "exit code 3"


@pytest.mark.parametrize(
    ("script", "command", "update_type"),
    [
        ("exit 0", None, "completed"),
        ("exit 1", None, "error"),
        ("exec sleep 60", "stop", "terminated"),
        ("exec sleep 60", "kill", "terminated"),
    ],
)
async def test_end_has_the_update_type_of_its_reason(
    server: ZmqAgentServer, script: str, command: str | None, update_type: str
) -> None:
    async with peer(server.endpoint) as asking, subscriber(server.pub_endpoint, "status/") as heard:
        agent = await asking.spawn(script)
        if command is not None:
            await asking.data(agent, command)
        found = await heard.until_end_of(agent.id)
    last = found[-1]
    assert isinstance(last, StatusUpdate)
    assert last.update_type.value == update_type


async def test_failed_start_is_published_as_an_error_of_the_agent_that_was_announced(
    server: ZmqAgentServer,
) -> None:
    async with peer(server.endpoint) as asking, subscriber(server.pub_endpoint, "status/") as heard:
        response = await asking.spawn_response("true", timeout_secs=0)
        assert not response.success
        _, announced = await heard.next()
        _, failed = await heard.next()
    assert announced.status.value == "initializing"
    assert (failed.agent_id, failed.status.value) == (announced.agent_id, "failed")
    assert failed.message


async def test_logs_are_whole_in_order_and_before_the_end(server: ZmqAgentServer) -> None:
    size = 3_000_000
    script = f"head -c {size} /dev/urandom; head -c 1000 /dev/urandom >&2"
    async with peer(server.endpoint) as asking:
        async with subscriber(server.pub_endpoint, EVERYTHING) as heard:
            agent = await asking.spawn(script)
            found = await heard.until_end_of(agent.id)
        last = found[-1]
        assert isinstance(last, StatusUpdate)
        assert (last.data["stdout_bytes"], last.data["stderr_bytes"]) == (size, 1000)
        for stream, total in ((LogStreamType.STDOUT, size), (LogStreamType.STDERR, 1000)):
            logs = logs_of(found, stream)
            assert all(len(message.data) <= 65536 for message in logs)
            ends = itertools.accumulate(len(message.data) for message in logs)
            assert [message.sequence for message in logs] == [0, *ends][:-1]
            assert sum(len(message.data) for message in logs) == total
        published = b"".join(message.data for message in logs_of(found, LogStreamType.STDOUT))
        read = await asking.data(agent, "read_stdout", {"offset": size - 1000, "encoding": "bytes"})
        assert bytes(read["data"]) == published[-1000:]


async def test_logs_of_one_agent_do_not_reach_subscribers_of_another(
    server: ZmqAgentServer,
) -> None:
    async with peer(server.endpoint) as asking:
        wanted = await asking.spawn("read x; echo wanted")
        other = await asking.spawn("read x; echo other")
        topic = str(wanted.id)
        async with subscriber(server.pub_endpoint, topic) as heard:
            await asking.data(other, "write_stdin", {"close": True})
            await asking.end(other)
            await asking.data(wanted, "write_stdin", {"close": True})
            assert (await heard.next())[1].data == b"wanted\n"
    assert server.statistics().logs_published == 1


async def test_subscription_begins_at_the_end_of_what_was_there(server: ZmqAgentServer) -> None:
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("echo before; read x; echo after")
        await asking.data(agent, "read_stdout", {"wait_secs": 5})
        async with subscriber(server.pub_endpoint, str(agent.id)) as heard:
            await asking.data(agent, "write_stdin", {"close": True})
            _, message = await heard.next()
    assert (message.sequence, message.data) == (7, b"after\n")


async def test_new_output_is_announced_at_most_ten_times_a_second(server: ZmqAgentServer) -> None:
    async with peer(server.endpoint) as asking, subscriber(server.pub_endpoint, "status/") as heard:
        agent = await asking.spawn("for n in $(seq 100); do echo $n; sleep 0.005; done")
        found = await heard.until_end_of(agent.id)
        announced = [
            update
            for update in found
            if isinstance(update, StatusUpdate)
            and update.update_type is StatusUpdateType.OUTPUT_AVAILABLE
        ]
        data = await asking.data(agent, "get_status")
    assert announced
    gaps = [
        (later.timestamp_ns - earlier.timestamp_ns) / 1e9
        for earlier, later in itertools.pairwise(announced)
    ]
    assert all(gap > 0.09 for gap in gaps)
    assert announced[-1].data["stdout_bytes"] <= data["stdout_bytes"]


async def test_heartbeat_is_the_servers_own(start_server: StartServer) -> None:
    server = await start_server(status_update_interval_secs=0.02)
    async with (
        peer(server.endpoint) as asking,
        subscriber(server.pub_endpoint, NIL_TOPIC) as heard,
    ):
        await asking.spawn("exec sleep 60")
        while True:
            topic, update = await heard.next()
            if update.data["active_agents"] == 1:
                break
    assert topic == NIL_TOPIC
    assert update.update_type is StatusUpdateType.HEARTBEAT
    assert update.status is None
    assert update.data["uptime_secs"] >= 0


async def test_without_status_updates_only_logs_are_published(start_server: StartServer) -> None:
    server = await start_server(enable_status_updates=False, status_update_interval_secs=0.01)
    async with (
        peer(server.endpoint) as asking,
        subscriber(server.pub_endpoint, EVERYTHING) as heard,
    ):
        agent = await asking.spawn("read x; echo out")
        await asking.data(agent, "write_stdin", {"close": True})
        _, message = await heard.next()
        assert isinstance(message, LogStreamMessage)
        await asking.end(agent)
    assert server.statistics().status_published == 0


@pytest.mark.parametrize("size", [10, 128])
async def test_sync_topic_comes_back(server: ZmqAgentServer, size: int) -> None:
    topic = "sync/".ljust(size, "x")
    async with raw_socket(zmq.SUB, server.pub_endpoint) as socket:
        socket.subscribe(topic)
        async with asyncio.timeout(5):
            assert await socket.recv() == f"{topic}\0{server.server_id}".encode()


async def test_sync_topic_that_is_too_long_ends_the_connection_and_does_not_come_back(
    server: ZmqAgentServer,
) -> None:
    async with raw_socket(zmq.SUB, server.pub_endpoint) as socket:
        socket.set(zmq.RECONNECT_IVL, -1)
        with socket.get_monitor_socket(int(zmq.EVENT_DISCONNECTED)) as monitor:
            socket.subscribe("sync/" + "x" * 200)
            assert await monitor.poll(5000)
            socket.disable_monitor()
        assert not await socket.poll(0)


async def test_publishing_endpoint_survives_frames_that_are_no_subscription(
    server: ZmqAgentServer,
) -> None:
    async with raw_socket(zmq.XSUB, server.pub_endpoint) as socket:
        await socket.send(b"\x07 what is this")
        await socket.send_multipart([b"two", b"frames"])
        await socket.send(b"\x01sync/after")
        async with asyncio.timeout(5):
            assert await socket.recv() == b"sync/after\0" + server.server_id.encode()
    async with raw_socket(zmq.SUB, server.pub_endpoint) as socket:
        assert Subscriber(socket)
    assert server.statistics().malformed == 2
