"""Output that is not UTF-8, and a line of 100 MB: every byte arrives, and queries stay bounded."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    InvalidContext,
    LogStreamType,
    ZmqClient,
    connect,
)
from faults.processes import memory_bytes

if TYPE_CHECKING:
    from conftest import StartServer

MIB = 1024 * 1024
LINE_BYTES = 100_000_000

# Every byte, cut-off characters, overlong and surrogate forms, terminal controls, no line end.
NOISE_PIECE = (
    bytes(range(256))
    + b"\xc3\n\xe2\x82\n\xf0\x9f\x98\n\xc0\xaf\xed\xa0\x80\xf8\x88\x80\x80\x80"
    + b"\xff\xfe\r\n\r\0\x1b]0;\x07"
)
NOISE = NOISE_PIECE * 300


@pytest.fixture
async def noisy(client: ZmqClient) -> AgentInfo:
    """An agent that has written noise to both streams and ended."""
    noise = f"bytes.fromhex('{NOISE_PIECE.hex()}') * 300"
    task = f"import sys\nfor to in (sys.stdout, sys.stderr): to.buffer.write({noise})"
    agent = await client.spawn_remote(AgentConfig(model_backend="py", task=task))
    assert (await client.wait_agent(agent, timeout_secs=10)).exit_code == 0
    return agent


async def followed(client: ZmqClient, agent: AgentInfo) -> tuple[bytes, bytes]:
    """Return both streams as a subscription brings them."""
    digests: dict[LogStreamType, Any] = {stream: hashlib.sha256() for stream in LogStreamType}
    async with await client.stream_agent_logs(agent, from_offset=0) as logs:
        async for message in logs:
            digests[message.stream_type].update(message.data)
    return digests[LogStreamType.STDOUT].digest(), digests[LogStreamType.STDERR].digest()


async def test_bytes_that_are_no_text_arrive_as_they_are(
    client: ZmqClient, noisy: AgentInfo
) -> None:
    digest = hashlib.sha256(NOISE).digest()
    assert await followed(client, noisy) == (digest, digest)
    for read in (client.read_agent_stdout, client.read_agent_stderr):
        data = b""
        while piece := await read(noisy, max_bytes=10_007):
            data += piece
        assert hashlib.sha256(data).digest() == digest


async def test_every_encoding_of_a_read_goes_over_all_bytes(
    client: ZmqClient, noisy: AgentInfo
) -> None:
    for encoding in ("bytes", "base64", "text"):
        offset, eof = 0, False
        while not eof:
            asked = {"offset": offset, "encoding": encoding, "max_bytes": 10_007}
            read = await client.control_agent(noisy, "read_stdout", asked)
            assert read.data["next_offset"] > offset or read.data["eof"]
            offset, eof = read.data["next_offset"], read.data["eof"]
        assert offset == len(NOISE)


async def test_query_over_bytes_that_are_no_text_gives_text(
    client: ZmqClient, noisy: AgentInfo
) -> None:
    found = await client.query_agent_output(noisy, "both", filter=r"\x1b\]0;")
    assert found.total_lines == 600
    lines = await client.query_agent_output(noisy, "stdout", limit=10)
    assert "�" in "".join(lines.lines)
    last = await client.control_agent(noisy, "query_output", {"max_lines": 3, "stdout": True})
    assert len(last.data["stdout"]) == 3


async def test_line_of_a_hundred_megabytes_arrives_whole_and_is_queried_within_bounds(
    start_server: StartServer,
) -> None:
    server = await start_server(output_limit_bytes=2 * LINE_BYTES)
    async with connect(server.endpoint) as client:
        task = f"head -c {LINE_BYTES} /dev/zero | tr '\\0' '\\351'; printf end"
        agent = await client.spawn_remote(AgentConfig(model_backend="sh", task=task))
        expected = hashlib.sha256()
        for begin in range(0, LINE_BYTES, MIB):
            expected.update(b"\xe9" * min(MIB, LINE_BYTES - begin))
        expected.update(b"end")
        async with asyncio.timeout(50):
            stdout, stderr = await followed(client, agent)
        assert stdout == expected.digest()
        assert stderr == hashlib.sha256().digest()
        assert (await client.wait_agent(agent)).exit_code == 0
        before = memory_bytes()
        began = time.perf_counter()
        found = await client.query_agent_output(agent, "stdout")
        assert found.total_lines == 1
        assert len(found.lines[0].encode()) < 10 * MIB
        last = await client.control_agent(agent, "query_output", {"max_lines": 5})
        assert last.data["stdout_lines"] == 1
        with pytest.raises(InvalidContext):
            await client.query_agent_output(agent, "stdout", filter="(")
        matching = await client.query_agent_output(agent, "stdout", filter="(.*x)+$")
        assert (matching.total_lines, len(matching.lines)) == (0, 0)
        assert time.perf_counter() - began < 20
        assert memory_bytes() - before < 120_000_000
