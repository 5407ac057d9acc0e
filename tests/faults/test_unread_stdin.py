"""An agent that does not read its stdin: what waits for it is bounded, and no byte is doubtful."""

from __future__ import annotations

import asyncio
import hashlib
from uuid import uuid4

import pytest

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    InvalidState,
    NotFound,
    WouldBlock,
    ZmqClient,
)
from faults.keeper_process import keeper_pid
from faults.processes import memory_bytes

MIB = 1024 * 1024

# What the keeper keeps for an agent beside the pipe, whose 64 KiB Linux may give or not.
KEPT_BYTES = MIB
PIPE_BYTES = 64 * 1024

# Reads nothing before it is told to, then all there is.
SLEEPER = """
import hashlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
data = sys.stdin.buffer.read()
print(len(data), hashlib.sha256(data).hexdigest(), flush=True)
"""


async def spawn_sleeper(client: ZmqClient) -> AgentInfo:
    agent = await client.spawn_remote(AgentConfig(model_backend="py", task=SLEEPER))
    async with asyncio.timeout(10):
        while not await client.read_agent_stdout(agent):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return agent


def keeper_memory_bytes() -> int:
    with open(f"/proc/{keeper_pid()}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


async def write_until_it_blocks(client: ZmqClient, agent: AgentInfo, pattern: bytes) -> bytes:
    """Return what was taken, to the byte."""
    taken = b""
    while len(taken) < 10 * MIB:
        piece = b"%d:" % len(taken) + pattern * 40_000
        try:
            await client.write_agent_stdin(agent, piece)
        except WouldBlock as error:
            return taken + piece[: error.bytes_written]
        taken += piece
    pytest.fail("there is no end to what is kept for an agent that does not read")


@pytest.mark.parametrize("pattern", [b"text\n", b"\xff\x00"], ids=["text", "bytes"])
async def test_what_was_taken_arrives_and_what_was_refused_does_not(
    client: ZmqClient, pattern: bytes
) -> None:
    agent = await spawn_sleeper(client)
    taken = await write_until_it_blocks(client, agent, pattern)
    assert KEPT_BYTES / 2 < len(taken) <= KEPT_BYTES + PIPE_BYTES
    await client.signal_agent(agent, "SIGUSR1")
    async with asyncio.timeout(10):
        while True:
            try:
                await client.write_agent_stdin(agent, b"the end", close=True)
                break
            except WouldBlock:
                await asyncio.sleep(0.01)
    taken += b"the end"
    await client.wait_agent(agent, timeout_secs=10)
    words = f"{len(taken)} {hashlib.sha256(taken).hexdigest()}\n"
    assert await client.read_agent_stdout(agent) == words.encode()


async def test_many_writers_together_cost_no_more_memory(client: ZmqClient) -> None:
    agent = await client.spawn_remote(AgentConfig(model_backend="sh", task="exec sleep 60"))
    reading = await client.spawn_remote(AgentConfig(model_backend="sh", task="exec cat"))

    async def offer(times: int) -> None:
        for _ in range(times):
            results = await asyncio.gather(
                *(client.write_agent_stdin(agent, b"x" * 300_000) for _ in range(20)),
                return_exceptions=True,
            )
            assert {type(result) for result in results} <= {WouldBlock, type(None)}

    await offer(10)  # what is on its way at once takes memory that is not given back
    ours, keepers = memory_bytes(), keeper_memory_bytes()
    await offer(30)  # 180 MB
    assert memory_bytes() - ours < 60_000_000
    assert keeper_memory_bytes() - keepers < 10_000_000
    await client.write_agent_stdin(reading, b"others are served")
    async with asyncio.timeout(10):
        while await client.read_agent_stdout(reading) != b"others are served":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_write_to_who_cannot_read_is_a_typed_error(client: ZmqClient) -> None:
    ended = await client.spawn_remote(AgentConfig(model_backend="sh", task="true"))
    await client.wait_agent(ended, timeout_secs=10)
    with pytest.raises(InvalidState):
        await client.write_agent_stdin(ended, b"x")
    closed = await client.spawn_remote(
        AgentConfig(model_backend="sh", task="exec <&-; echo; sleep 60")
    )
    async with asyncio.timeout(10):
        while not await client.read_agent_stdout(closed):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    with pytest.raises(InvalidState):
        await client.write_agent_stdin(closed, b"x")
    killed = await spawn_sleeper(client)
    with pytest.raises(WouldBlock):
        await client.write_agent_stdin(killed, b"x" * 2 * MIB)
    await client.kill_agent(killed)
    await client.wait_agent(killed, timeout_secs=10)
    with pytest.raises(InvalidState):
        await client.write_agent_stdin(killed, b"x")
    with pytest.raises(NotFound):
        await client.write_agent_stdin(uuid4(), b"x")
