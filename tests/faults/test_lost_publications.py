"""PUB/SUB drops for a subscriber that is slow, and before one has joined: every gap is filled."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import zmq

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    LogStreamMessage,
    ZmqClient,
    connect,
    deserialize_zmq_message,
    replace,
)
from raw_peers import Peer, peer, raw_socket

if TYPE_CHECKING:
    from conftest import StartServer

# More than the publisher queues for one subscriber: 1,000 messages of 64 KiB.
FLOOD_BYTES = 80_000_000
SHORT_BYTES = 3_000_000
LIMIT_BYTES = 2 * FLOOD_BYTES
MESSAGE_BYTES = 64 * 1024
"""The most that is published at once; what is longer was read."""


def flood_of(count: int) -> str:
    """Return a command that writes so many bytes, no two parts of which are alike."""
    return f"seq 1000000000 | head -c {count}"


@functools.cache
def digest_of_flood(count: int) -> str:
    done = subprocess.run(["sh", "-c", flood_of(count)], stdout=subprocess.PIPE, check=True)
    return hashlib.sha256(done.stdout).hexdigest()


# Follows an agent through the public client; prints what it got. It is frozen in between.
FOLLOWER = """
import asyncio, hashlib, sys
from descartes_fast import connect

async def main(endpoint, agent):
    async with connect(endpoint) as client:
        stream = await client.stream_agent_logs(agent, from_offset=0)
        statuses = await client.subscribe_status_updates(agent)
        print("following", flush=True)
        digest = hashlib.sha256()
        length = longest = 0
        async for message in stream:
            assert message.sequence == length, (message.sequence, length)
            digest.update(message.data)
            length += len(message.data)
            longest = max(longest, len(message.data))
        async for update in statuses:
            last = update
        print(length, longest, digest.hexdigest(), last.status.value, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_follower_that_was_frozen_gets_every_byte_and_the_end(
    start_server: StartServer,
) -> None:
    server = await start_server(output_limit_bytes=LIMIT_BYTES)
    async with connect(server.endpoint) as client:
        task = f"read line; {flood_of(FLOOD_BYTES)}"
        agent = await client.spawn_remote(AgentConfig(model_backend="sh", task=task))
        follower = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-c", FOLLOWER, server.endpoint, str(agent.id)],
            stdout=subprocess.PIPE,
        )
        with follower:
            assert follower.stdout is not None
            assert await asyncio.to_thread(follower.stdout.readline) == b"following\n"
            follower.send_signal(signal.SIGSTOP)
            await client.write_agent_stdin(agent, b"\n")
            assert (await client.wait_agent(agent, timeout_secs=30)).exit_code == 0
            follower.send_signal(signal.SIGCONT)
            began = time.monotonic()
            words = (await asyncio.to_thread(follower.stdout.readline)).decode().split()
    # The gap was seen, not found when the follower looked again after 15 seconds.
    assert time.monotonic() - began < 12
    length, longest, digest, status = words
    assert int(length) == FLOOD_BYTES
    assert int(longest) > MESSAGE_BYTES, "nothing was lost, so nothing was tested"
    assert digest == await asyncio.to_thread(digest_of_flood, FLOOD_BYTES)
    assert status == AgentStatus.COMPLETED.value


async def receive(socket: Any, timeout_secs: float) -> LogStreamMessage | None:
    """Return the next log message, or ``None`` if none comes."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_secs):
            while True:
                message = deserialize_zmq_message((await socket.recv()).partition(b"\0")[2])
                if isinstance(message, LogStreamMessage):
                    return message
    return None


async def read_between(asking: Peer, agent: AgentInfo, start: int, end: int) -> bytes:
    """Read a gap at its offset."""
    data = b""
    while len(data) < end - start:
        wanted = {"offset": start + len(data), "max_bytes": min(65536, end - start - len(data))}
        read = await asking.data(agent, "read_stdout", wanted | {"encoding": "text"})
        assert read["offset"] == wanted["offset"]
        data += read["data"].encode()
    return data


class Reassembly:
    """Puts together what a subscriber of another make gets, and reads what it misses."""

    def __init__(self, asking: Peer, agent: AgentInfo) -> None:
        self.gaps = 0
        self.length = 0
        self.digest = hashlib.sha256()
        self._asking = asking
        self._agent = agent

    async def add(self, message: LogStreamMessage) -> None:
        assert message.sequence >= self.length
        if message.sequence > self.length:
            self.gaps += 1
            self._append(
                await read_between(self._asking, self._agent, self.length, message.sequence)
            )
        self._append(message.data)

    def _append(self, data: bytes) -> None:
        self.length += len(data)
        self.digest.update(data)


@pytest.mark.parametrize("joins", ["early", "late"])
async def test_gaps_of_a_slow_subscriber_show_in_the_sequence_and_can_be_read(
    start_server: StartServer, joins: str
) -> None:
    server = await start_server(output_limit_bytes=LIMIT_BYTES)
    count = FLOOD_BYTES if joins == "early" else SHORT_BYTES
    async with (
        peer(server.endpoint) as asking,
        raw_socket(zmq.SUB, server.pub_endpoint, RCVHWM=3) as socket,
    ):
        agent = await asking.spawn(f"read line; {flood_of(count)}; read line; printf more")
        if joins == "early":
            socket.subscribe(str(agent.id))
            await asyncio.sleep(0.1)
        await asking.data(agent, "write_stdin", {"data": "\n"})
        async with asyncio.timeout(20):
            end = {"offset": count - 1, "wait_secs": 15}
            while not (await asking.data(agent, "read_stdout", end))["bytes"]:
                pass
        if joins == "late":
            socket.subscribe(str(agent.id))
        else:
            async with asyncio.timeout(20):
                while server.statistics().log_bytes_published < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        whole = Reassembly(asking, agent)
        while (message := await receive(socket, 0.3)) is not None:
            await whole.add(message)
        # What is published behind a gap shows it.
        await asking.data(agent, "write_stdin", {"data": "\n"})
        message = await receive(socket, 10)
        assert message is not None
        await whole.add(replace(message, data=b""))
        assert message.data == b"more"
        assert whole.gaps > 0, "nothing was lost, so nothing was tested"
        assert whole.length == count
        assert whole.digest.hexdigest() == await asyncio.to_thread(digest_of_flood, count)


async def test_subscriber_that_comes_late_is_told_everything_from_the_start(
    client: ZmqClient,
) -> None:
    task = f"{flood_of(SHORT_BYTES)}; read line; printf more"
    agent = await client.spawn_remote(AgentConfig(model_backend="sh", task=task))
    read = {"offset": SHORT_BYTES // 2, "wait_secs": 10}
    await client.control_agent(agent, "read_stdout", read)
    logs = await client.stream_agent_logs(agent, from_offset=0)
    await client.write_agent_stdin(agent, b"\n")
    whole = b""
    async with asyncio.timeout(30):
        async for message in logs:
            assert message.sequence == len(whole)
            whole += message.data
    assert whole.endswith(b"more")
    digest = hashlib.sha256(whole[:-4]).hexdigest()
    assert digest == await asyncio.to_thread(digest_of_flood, SHORT_BYTES)
