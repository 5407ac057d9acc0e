"""Requests so large that an answer which repeats them would not fit into a message.

Whoever asks gets an answer, and what was done is never answered as if it was not.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import (
    MAX_MESSAGE_SIZE,
    AgentConfig,
    BackendConfig,
    BatchControlCommand,
    ControlCommand,
    ControlCommandType,
    CustomActionRequest,
    HealthCheckRequest,
    ListAgentsRequest,
    ListAgentsResponse,
    OutputQueryRequest,
    SpawnRequest,
    ZmqOutputStream,
    deserialize_zmq_message,
    serialize_zmq_message,
)
from raw_peers import Peer, new_id, peer

if TYPE_CHECKING:
    from conftest import StartServer
    from descartes_fast.server import ZmqAgentServer

NOBODY = uuid.UUID(int=7)
LONG_ID = "i" * (MAX_MESSAGE_SIZE - 4096)


@pytest.fixture
async def reader(start_server: StartServer) -> ZmqAgentServer:
    """A server whose agents take a task of any length, by stdin."""
    return await start_server(
        backends={
            "cat": BackendConfig(command=("sh", "-c", "exec sleep 60"), task="stdin", stdin="pipe")
        }
    )


@pytest.fixture
async def asking(reader: ZmqAgentServer) -> AsyncIterator[Peer]:
    async with peer(reader.endpoint) as connected:
        yield connected


async def _first_reply(asking: Peer, message: Any) -> Any:
    """Ask on a connection that has nothing else in flight; the reply's id may be another."""
    await asking.send(message)
    async with asyncio.timeout(10):
        return deserialize_zmq_message((await asking.socket.recv_multipart())[-1])


async def test_spawn_whose_request_just_fits_is_answered_with_the_agent(asking: Peer) -> None:
    request = SpawnRequest(
        request_id=new_id(), config=AgentConfig(name="n", model_backend="cat", task="")
    )
    room = MAX_MESSAGE_SIZE - len(serialize_zmq_message(request)) - 8
    config = AgentConfig(name="n", model_backend="cat", task="x" * room)
    response = await asking.ask(SpawnRequest(request_id=request.request_id, config=config))
    assert response.success, response.error
    assert response.agent_info.task.startswith("x" * 1000)
    assert len(response.agent_info.task) < 10_000
    data = await asking.data(response.agent_info, "get_status", {"info": True})
    os.kill(data["pid"], 0)


@pytest.mark.parametrize(
    "request_",
    [
        ListAgentsRequest(request_id=LONG_ID),
        HealthCheckRequest(request_id=LONG_ID),
        SpawnRequest(request_id=LONG_ID, config=AgentConfig(model_backend="none", task="x")),
        ControlCommand(
            request_id=LONG_ID, agent_id=NOBODY, command_type=ControlCommandType.GET_STATUS
        ),
        OutputQueryRequest(request_id=LONG_ID, agent_id=NOBODY, stream=ZmqOutputStream.BOTH),
        CustomActionRequest(request_id=LONG_ID, agent_id=NOBODY, action="echo"),
        BatchControlCommand(
            request_id=LONG_ID, agent_ids=[NOBODY], command_type=ControlCommandType.KILL
        ),
    ],
    ids=lambda message: type(message).__name__,
)
async def test_request_with_a_huge_id_is_refused_with_the_beginning_of_it(
    asking: Peer, request_: Any
) -> None:
    reply = await _first_reply(asking, request_)
    assert reply.request_id == LONG_ID[:1024]
    assert "a request id may have 1024 characters" in repr(reply)


async def test_message_that_is_no_request_with_a_huge_id_is_refused_too(asking: Peer) -> None:
    reply = await _first_reply(asking, ListAgentsResponse(request_id=LONG_ID, success=True))
    assert reply.request_id == LONG_ID[:1024]


async def test_batch_of_too_many_agents_is_refused_once_for_all(asking: Peer) -> None:
    response = await asking.ask(
        BatchControlCommand(
            request_id=new_id(), agent_ids=[NOBODY] * 200_000, command_type=ControlCommandType.KILL
        )
    )
    assert (response.success, response.successful, response.failed) == (False, 0, 200_000)
    assert [result.error for result in response.results] == [
        "invalid: a batch may have 10000 agents"
    ]


async def test_batch_whose_errors_quote_a_huge_payload_is_answered(asking: Peer) -> None:
    config = AgentConfig(model_backend="cat", task="x")
    agent = (await asking.ask(SpawnRequest(request_id=new_id(), config=config))).agent_info
    response = await asking.ask(
        BatchControlCommand(
            request_id=new_id(),
            agent_ids=[agent.id] * 10_000,
            command_type=ControlCommandType.SIGNAL,
            payload={"signal": "é" * 1_000_000},
        )
    )
    assert response.failed == 10_000
    assert all(result.error.startswith("invalid: ") for result in response.results)


async def test_agent_with_a_huge_name_or_metadata_is_refused(asking: Peer) -> None:
    for name, metadata in (("n" * 1_000_000, None), ("n", {"key": "v" * 1_000_000})):
        config = AgentConfig(name=name, model_backend="cat", task="x")
        request = SpawnRequest(request_id=new_id(), config=config, metadata=metadata)
        response = await asking.ask(request)
        assert response.error.startswith("invalid: ")
