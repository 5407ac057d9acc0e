"""Peers made of a plain pyzmq socket: typed requests and replies, or bytes of the vectors."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import zmq
import zmq.asyncio

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    BatchControlCommand,
    CommandResponse,
    ControlCommand,
    ControlCommandType,
    LogStreamMessage,
    SpawnRequest,
    SpawnResponse,
    StatusUpdate,
    deserialize_zmq_message,
    serialize_zmq_message,
)

ANSWER_SECS = 10.0

_VECTORS_FILE = Path(__file__).parent / "wire" / "vectors.jsonl"
VECTOR_AGENT_ID = UUID("11111111-2222-3333-4444-555555555555")
_numbers = itertools.count(1)


GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00NULL".ljust(23, b"\0") + b"\0" * 32
"""What a peer says first, by ZMTP 3.0 with the NULL mechanism."""


def vectors() -> dict[str, bytes]:
    """Return the bytes of the vectors by name."""
    with _VECTORS_FILE.open(encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    return {entry["name"]: bytes.fromhex(entry["hex"]) for entry in entries}


@asynccontextmanager
async def raw_socket(kind: int, endpoint: str, **options: int) -> AsyncIterator[Any]:
    """A connected socket with a context of its own."""
    context = zmq.asyncio.Context()
    socket = context.socket(kind)
    try:
        socket.set(zmq.IPV6, int("[" in endpoint))
        for name, value in options.items():
            socket.set(getattr(zmq, name), value)
        socket.connect(endpoint)
        yield socket
    finally:
        socket.close(linger=0)
        context.term()


class Peer:
    """A DEALER that sends typed requests and gets the typed reply to each."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self._replies: dict[str, Any] = {}

    async def send(self, message: Any) -> str:
        """Send a request; return its id."""
        await self.socket.send_multipart([b"", serialize_zmq_message(message)])
        request_id: str = message.request_id
        return request_id

    async def reply(self, request_id: str) -> Any:
        """Return the reply to a request; replies to others are kept for them."""
        async with asyncio.timeout(ANSWER_SECS):
            while request_id not in self._replies:
                frames = await self.socket.recv_multipart()
                assert len(frames) == 2
                assert frames[0] == b""
                message = deserialize_zmq_message(frames[1])
                self._replies[message.request_id] = message
        return self._replies.pop(request_id)

    async def ask(self, message: Any) -> Any:
        return await self.reply(await self.send(message))

    async def spawn_response(self, task: str, backend: str = "sh", **fields: Any) -> SpawnResponse:
        config = AgentConfig(name=fields.pop("name", "agent"), model_backend=backend, task=task)
        request = SpawnRequest(request_id=new_id(), config=config, **fields)
        response = await self.ask(request)
        assert isinstance(response, SpawnResponse)
        return response

    async def spawn(self, task: str, backend: str = "sh", **fields: Any) -> AgentInfo:
        response = await self.spawn_response(task, backend, **fields)
        assert response.success, response.error
        assert response.agent_info is not None
        return response.agent_info

    async def control(
        self, agent: AgentInfo | UUID, command: str, payload: Any = None
    ) -> CommandResponse:
        agent_id = agent.id if isinstance(agent, AgentInfo) else agent
        response = await self.ask(command_of(agent_id, command, payload))
        assert isinstance(response, CommandResponse)
        assert response.agent_id == agent_id
        return response

    async def data(self, agent: AgentInfo | UUID, command: str, payload: Any = None) -> Any:
        """Return the data of a command that must succeed."""
        response = await self.control(agent, command, payload)
        assert response.success, response.error
        return response.data

    async def read_to_end(self, agent: AgentInfo, command: str = "read_stdout") -> str:
        """Return the text of a stream, once the agent has ended."""
        text, offset, eof = "", 0, False
        while not eof:
            data = await self.data(
                agent, command, {"offset": offset, "wait_secs": 5, "encoding": "text"}
            )
            text += data["data"] or ""
            offset, eof = data["next_offset"], data["eof"]
        return text

    async def end(self, agent: AgentInfo) -> Any:
        """Return an agent's status data once it has ended."""
        await self.read_to_end(agent)
        return await self.data(agent, "get_status")


@asynccontextmanager
async def peer(endpoint: str) -> AsyncIterator[Peer]:
    async with raw_socket(zmq.DEALER, endpoint) as socket:
        yield Peer(socket)


class Subscriber:
    """A SUB socket whose subscriptions have arrived at the server."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def next(self) -> tuple[str, Any]:
        """Return the next topic and message."""
        async with asyncio.timeout(ANSWER_SECS):
            topic, _, body = (await self.socket.recv()).partition(b"\0")
        return topic.decode(), deserialize_zmq_message(body)

    async def until_end_of(self, agent_id: UUID) -> list[StatusUpdate | LogStreamMessage]:
        """Return what comes about an agent up to its last status update."""
        found = []
        while True:
            _, message = await self.next()
            if message.agent_id == agent_id:
                found.append(message)
                if (
                    isinstance(message, StatusUpdate)
                    and message.status
                    and (message.status.is_terminal)
                ):
                    return found


@asynccontextmanager
async def subscriber(pub_endpoint: str, *topics: str) -> AsyncIterator[Subscriber]:
    """Subscribe, and wait for the server's echo of a topic of our own."""
    async with raw_socket(zmq.SUB, pub_endpoint) as socket:
        for topic in topics:
            socket.subscribe(topic)
        sync = f"sync/{new_id()}"
        socket.subscribe(sync)
        async with asyncio.timeout(ANSWER_SECS):
            while not (await socket.recv()).startswith(sync.encode() + b"\0"):
                pass
        socket.unsubscribe(sync)
        yield Subscriber(socket)


def new_id() -> str:
    return f"request-{next(_numbers)}"


def batch_of(
    agent_ids: list[UUID], command: str, payload: Any = None, **fields: Any
) -> BatchControlCommand:
    return BatchControlCommand(
        request_id=new_id(),
        agent_ids=agent_ids,
        command_type=ControlCommandType(command),
        payload=payload,
        **fields,
    )


def command_of(agent_id: UUID, command: str, payload: Any = None) -> ControlCommand:
    return ControlCommand(
        request_id=new_id(),
        agent_id=agent_id,
        command_type=ControlCommandType(command),
        payload=payload,
    )
