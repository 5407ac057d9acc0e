"""Plain REQ and DEALER sockets, sending the vectors' bytes and reading MessagePack."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgpack
import pytest
import zmq

from descartes_fast import BackendConfig
from raw_peers import VECTOR_AGENT_ID, raw_socket, vectors

if TYPE_CHECKING:
    from conftest import StartServer

VECTORS = vectors()
REQUEST_ID = "0b7e2c1e-8d8e-4a1d-9d6a-3f6f6b1c2d3e"

# The vectors spawn "claude": here that is a script, which answers each line it reads.
SCRIPT = 'echo "$0"; trap "" INT; while read line; do echo "got $line"; done'
STAND_IN = {
    "claude": BackendConfig(
        command=("sh", "-c", SCRIPT, "{task}"),
        task="argument",
        tool_levels={},
        stdin="pipe",
        environment=("PATH",),
    )
}


class RawPeer:
    """A socket and the frames its kind puts around a body."""

    def __init__(self, socket: Any, before: Sequence[bytes], after: Sequence[bytes]) -> None:
        self._socket = socket
        self._before = list(before)
        self._after = list(after)

    async def ask(self, body: bytes) -> Any:
        """Send a body; return the reply's array of tag and fields."""
        await self._socket.send_multipart([*self._before, body, *self._after])
        async with asyncio.timeout(10):
            frames = await self._socket.recv_multipart()
        assert frames[:-1] == self._before
        return msgpack.unpackb(frames[-1], raw=False)


@asynccontextmanager
async def connected(kind: str, endpoint: str) -> AsyncIterator[RawPeer]:
    """Connect one of the kinds of peers there are."""
    match kind:
        case "req":
            options, before, after = {}, [], []
        case "req-correlate-relaxed":
            options, before, after = {"REQ_CORRELATE": 1, "REQ_RELAXED": 1}, [], []
        case "dealer-with-delimiter":
            options, before, after = {}, [b""], []
        case "dealer-bare":
            options, before, after = {}, [], []
        case "dealer-with-frames-after":
            options, before, after = {}, [b""], [b"ignored", b"too"]
        case _:
            raise AssertionError(kind)
    socket_type = zmq.REQ if kind.startswith("req") else zmq.DEALER
    async with raw_socket(socket_type, endpoint, **options) as socket:
        yield RawPeer(socket, before, after)


KINDS = [
    "req",
    "req-correlate-relaxed",
    "dealer-with-delimiter",
    "dealer-bare",
    "dealer-with-frames-after",
]


def about(agent_id: bytes, name: str) -> bytes:
    """Return a vector's bytes with the id of an agent that exists."""
    return VECTORS[name].replace(VECTOR_AGENT_ID.bytes, agent_id)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_request_of_the_vectors_gets_its_reply(
    start_server: StartServer, kind: str
) -> None:
    server = await start_server(backends=STAND_IN)
    async with connected(kind, server.endpoint) as peer:
        health = await peer.ask(VECTORS["health_check_request"])
        assert health[0] == "health_check_response"
        assert health[1:4] == ["health-1", True, "1.0.0"]
        assert health[6]["server_id"] == server.server_id

        spawned = await peer.ask(VECTORS["spawn_request/minimal"])
        assert spawned[:3] == ["spawn_response", REQUEST_ID, True]
        assert spawned[5] == server.server_id
        agent_id, name, status, backend, _, task = spawned[3][:6]
        assert (name, status, backend, task) == (
            "remote-agent-1",
            "running",
            "claude",
            "Analyze codebase",
        )

        listed = await peer.ask(VECTORS["list_agents_request/all"])
        assert listed[:3] == ["list_agents_response", REQUEST_ID, True]
        assert [info[0] for info in listed[3]] == [agent_id]

        await every_control_command(peer, agent_id)

        queried = await peer.ask(about(agent_id, "output_query_request/stdout"))
        assert queried[:4] == ["output_query_response", REQUEST_ID, agent_id, True]
        assert queried[4] == ["Analyze codebase", "got Execute task step 2"]

        pong = await peer.ask(about(agent_id, "custom_action_request/minimal"))
        assert pong[:4] == ["command_response", REQUEST_ID, agent_id, True]

        batch = await peer.ask(about(agent_id, "batch_control_command/three"))
        assert batch[:3] == ["batch_control_response", REQUEST_ID, False]
        assert [result[:2] for result in batch[3]] == [
            [UUID(int=0).bytes, False],
            [agent_id, True],
            [UUID("ffffffff-ffff-4fff-bfff-ffffffffffff").bytes, False],
        ]
        assert batch[4:] == [1, 2]

        for name in ("control_command/stop", "control_command/kill"):
            ended = await peer.ask(about(agent_id, name))
            assert ended[3] is True


async def every_control_command(peer: RawPeer, agent_id: bytes) -> None:
    """Send the vectors of the control commands that leave the agent running."""

    async def data_of(command: str) -> Any:
        tag, request_id, replied_id, success, status, data, error = await peer.ask(
            about(agent_id, f"control_command/{command}")
        )
        assert (tag, request_id, replied_id) == ("command_response", REQUEST_ID, agent_id)
        assert success, error
        assert status in ("running", "paused")
        return data

    assert await data_of("pause") == {"paused": True, "mode": "forced"}
    assert (await data_of("get_status"))["status"] == "paused"
    assert await data_of("resume") == {"resumed": True}
    assert await data_of("write_stdin") == {"bytes_written": 20}
    while (await data_of("get_status"))["stdout_bytes"] < 41:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    read = await data_of("read_stdout")
    assert base64.b64decode(read["data"]) == b"Analyze codebase\ngot Execute task step 2\n"
    assert (await data_of("read_stderr"))["data"] is None
    assert (await data_of("query_output"))["stdout_lines"] == 2
    assert (await data_of("stream_logs"))["topic"] == str(UUID(bytes=agent_id))
    assert await data_of("custom_action") == [1, 2, 3]
    assert await data_of("signal") == {"signal_sent": "SIGINT"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    [
        "control_command/get_status",
        "custom_action_request/full",
        "output_query_request/both",
        "spawn_request/full",
        "spawn_response/ok",
        "list_agents_response/three",
    ],
)
async def test_refusal_comes_as_the_requests_response(
    start_server: StartServer, kind: str, name: str
) -> None:
    server = await start_server()
    async with connected(kind, server.endpoint) as peer:
        reply = await peer.ask(VECTORS[name])
        assert reply[1] == REQUEST_ID
        match name:
            case "output_query_request/both":
                assert reply[0] == "output_query_response"
                assert reply[7].startswith("not_found: ")
            case "spawn_request/full":
                assert reply[:3] == ["spawn_response", REQUEST_ID, False]
                assert reply[3] is None
                assert reply[4].startswith("denied: ")
            case "spawn_response/ok" | "list_agents_response/three":
                assert reply[:4] == ["command_response", REQUEST_ID, UUID(int=0).bytes, False]
                assert reply[6].startswith("invalid: ")
            case _:
                assert reply[:4] == [
                    "command_response",
                    REQUEST_ID,
                    VECTOR_AGENT_ID.bytes,
                    False,
                ]
                assert reply[6].startswith("not_found: ")
    assert server.statistics().errors == 1
