"""Agents that write much and exit at once: the end is told last, and no byte is cut off."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING
from uuid import UUID

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    LogStreamMessage,
    LogStreamType,
    StatusUpdate,
    ZmqClient,
    connect,
)
from raw_peers import subscriber

if TYPE_CHECKING:
    from descartes_fast.server import ZmqAgentServer

COUNT = 50
OUT_BYTES, ERR_BYTES = 150_000, 70_000
LAST_WORDS = b"last words"

# More than a pipe holds, so that much is still in it when the agent is gone.
TASK = (
    f"head -c {OUT_BYTES} /dev/zero | tr '\\0' o;"
    f"head -c {ERR_BYTES} /dev/zero | tr '\\0' e >&2;"
    f"printf '{LAST_WORDS.decode()}'; exit 3"
)
EXPECTED = {
    LogStreamType.STDOUT: b"o" * OUT_BYTES + LAST_WORDS,
    LogStreamType.STDERR: b"e" * ERR_BYTES,
}


async def spawn_all(client: ZmqClient) -> list[AgentInfo]:
    config = AgentConfig(model_backend="sh", task=TASK)
    agents = await client.spawn_many([config] * COUNT)
    return [agent for agent in agents if isinstance(agent, AgentInfo)]


async def test_terminal_update_is_the_last_that_is_published_of_an_agent(
    server: ZmqAgentServer, client: ZmqClient
) -> None:
    output: dict[tuple[UUID, LogStreamType], int] = defaultdict(int)
    ended: set[UUID] = set()
    async with subscriber(server.pub_endpoint, "") as heard:
        spawning = asyncio.create_task(spawn_all(client))
        while len(ended) < COUNT:
            topic, message = await heard.next()
            assert message.agent_id not in ended, f"{message!r} after the end, under {topic}"
            if isinstance(message, LogStreamMessage):
                key = (message.agent_id, message.stream_type)
                assert message.sequence == output[key]
                output[key] += len(message.data)
            elif message.status is not None and message.status.is_terminal:
                lengths = {stream: output[message.agent_id, stream] for stream in EXPECTED}
                assert lengths == {stream: len(data) for stream, data in EXPECTED.items()}
                assert message.data["stdout_bytes"] == len(EXPECTED[LogStreamType.STDOUT])
                assert message.data["stderr_bytes"] == ERR_BYTES
                ended.add(message.agent_id)
        assert {agent.id for agent in await spawning} == ended


async def test_subscriptions_end_with_every_byte_and_the_terminal_update(
    client: ZmqClient,
) -> None:
    statuses = await client.subscribe_status_updates()
    logs = await client.stream_agent_logs()
    agents = await spawn_all(client)
    assert len(agents) == COUNT
    missing = {(agent.id, stream): EXPECTED[stream] for agent in agents for stream in EXPECTED}
    async with asyncio.timeout(30):
        last: dict[UUID, StatusUpdate] = {}
        while sum(update.status.is_terminal for update in last.values()) < COUNT:
            update = await anext(statuses)
            known = last.get(update.agent_id)
            assert known is None or not known.status.is_terminal, f"{update!r} after the end"
            if update.status is not None:
                last[update.agent_id] = update
        while any(missing.values()):
            message = await anext(logs)
            rest = missing[message.agent_id, message.stream_type]
            assert rest.startswith(message.data)
            missing[message.agent_id, message.stream_type] = rest[len(message.data) :]


async def test_agent_that_is_told_to_have_ended_can_be_read_to_its_last_byte(
    server: ZmqAgentServer, client: ZmqClient
) -> None:
    async def read_after_the_end(agent: AgentInfo) -> tuple[int | None, bytes, bytes]:
        async with connect(server.endpoint) as other:
            ended = await client.wait_agent(agent, timeout_secs=30)
            found = []
            for read in (other.read_agent_stdout, other.read_agent_stderr):
                data = b""
                while piece := await read(agent):
                    data += piece
                found.append(data)
            return ended.exit_code, found[0], found[1]

    agents = await spawn_all(client)
    expected = (3, EXPECTED[LogStreamType.STDOUT], EXPECTED[LogStreamType.STDERR])
    for read in asyncio.as_completed([read_after_the_end(agent) for agent in agents]):
        assert await read == expected
