"""A reply is lost on its way: the client asks again, and nothing is done twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import zmq

from descartes_fast import (
    AgentConfig,
    AgentTimeout,
    CommandResponse,
    HealthCheckRequest,
    HealthCheckResponse,
    ListAgentsRequest,
    SpawnRequest,
    SpawnResponse,
    connect,
    deserialize_zmq_message,
    serialize_zmq_message,
)
from faults.processes import running
from raw_peers import command_of, new_id, peer, raw_socket

if TYPE_CHECKING:
    from conftest import StartServer
    from descartes_fast.server import ZmqAgentServer


class LossyProxy:
    """A TCP proxy in front of a server, which drops what the server sends while ``drops`` is set.

    It drops whole reads of the socket: with one small reply in flight, that is the reply.
    """

    def __init__(self, host: str, port: int) -> None:
        self.drops = False
        self.dropped = asyncio.Event()
        self._target = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> LossyProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.endpoint = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, lossy=False)),
            asyncio.create_task(self._pump(far_reader, writer, lossy=True)),
        ]
        self._tasks.update(pumps)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, lossy: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                if lossy and self.drops:
                    self.dropped.set()
                    continue
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


def proxy_of(server: ZmqAgentServer) -> LossyProxy:
    host, _, port = server.endpoint.removeprefix("tcp://").rpartition(":")
    return LossyProxy(host, int(port))


async def answer(socket: Any) -> Any:
    async with asyncio.timeout(10):
        return deserialize_zmq_message(await socket.recv())


async def test_relaxed_req_that_repeats_gets_its_reply_and_no_stale_one(
    start_server: StartServer,
) -> None:
    server = await start_server(endpoint="tcp://127.0.0.1:0")
    async with (
        proxy_of(server) as proxy,
        raw_socket(zmq.REQ, proxy.endpoint, REQ_RELAXED=1, REQ_CORRELATE=1) as socket,
    ):
        await socket.send(serialize_zmq_message(HealthCheckRequest(request_id="first")))
        assert (await answer(socket)).request_id == "first"
        spawn = serialize_zmq_message(
            SpawnRequest(
                request_id="the spawn",
                config=AgentConfig(model_backend="sh", task="exec sleep 60"),
            )
        )
        proxy.drops = True
        await socket.send(spawn)
        async with asyncio.timeout(10):
            await proxy.dropped.wait()
        proxy.drops = False
        await socket.send(spawn)
        response = await answer(socket)
        assert isinstance(response, SpawnResponse)
        assert response.success
        await socket.send(serialize_zmq_message(ListAgentsRequest(request_id="list")))
        listed = await answer(socket)
        assert listed.request_id == "list"
        assert [info.id for info in listed.agents] == [response.agent_info.id]
    assert server.statistics().spawns == 1
    assert server.statistics().replayed == 1


async def test_client_that_repeats_a_spawn_under_its_id_gets_the_one_process(
    start_server: StartServer,
) -> None:
    server = await start_server(endpoint="tcp://127.0.0.1:0")
    config = AgentConfig(model_backend="sh", task=f"exec sleep 60.{uuid4().int % 10**12:012}")
    async with proxy_of(server) as proxy, connect(proxy.endpoint) as client:
        proxy.drops = True
        with pytest.raises(AgentTimeout):
            await client.spawn_remote(config, timeout_secs=0.5, request_id="the spawn")
        async with asyncio.timeout(10):
            await proxy.dropped.wait()
        proxy.drops = False
        agent = await client.spawn_remote(config, timeout_secs=0.5, request_id="the spawn")
        assert [info.id for info in await client.list_remote_agents()] == [agent.id]
        data = (await client.control_agent(agent, "get_status")).data
        assert await asyncio.to_thread(running, config.task.removeprefix("exec ")) == [data["pid"]]
    assert server.statistics().replayed == 1


async def test_stale_reply_is_told_from_the_expected_one_by_its_correlation(
    start_server: StartServer,
) -> None:
    server = await start_server()
    await asyncio.to_thread(give_up_every_other_request, server.endpoint)


def give_up_every_other_request(endpoint: str) -> None:
    """Send a request while the reply to the last is on its way, and see whose reply comes.

    With a blocking socket: pyzmq's asyncio one raises ``Again`` when libzmq drops a stale reply.
    """
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.set(zmq.REQ_RELAXED, 1)
        socket.set(zmq.REQ_CORRELATE, 1)
        socket.set(zmq.RCVTIMEO, 10_000)
        socket.set(zmq.LINGER, 0)
        socket.connect(endpoint)
        for number in range(100):
            for which in ("given-up", "wanted"):
                request = HealthCheckRequest(request_id=f"{which}-{number}")
                socket.send(serialize_zmq_message(request))
            reply = deserialize_zmq_message(socket.recv())
            assert isinstance(reply, HealthCheckResponse)
            assert reply.request_id == f"wanted-{number}"


@pytest.mark.parametrize("command", ["write_stdin", "read_stdout"])
async def test_repeat_over_another_connection_is_the_same_request(
    server: ZmqAgentServer, command: str
) -> None:
    payload = {"data": "once\n"} if command == "write_stdin" else {"wait_secs": 5}
    replies: list[CommandResponse] = []
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("echo begin; exec cat")
        request = command_of(agent.id, command, payload)
        replies.append(await asking.ask(request))
    async with peer(server.endpoint) as again:
        replies.append(await again.ask(request))
        assert replies[0] == replies[1]
        await again.data(agent, "write_stdin", {"close": True})
        expected = "begin\nonce\n" if command == "write_stdin" else "begin\n"
        assert await again.read_to_end(agent) == expected


async def test_repeat_while_the_first_is_in_progress_shares_its_reply(
    server: ZmqAgentServer,
) -> None:
    async with peer(server.endpoint) as one, peer(server.endpoint) as other:
        config = AgentConfig(model_backend="sh", task="exec sleep 60")
        request = SpawnRequest(request_id=new_id(), config=config)
        for asking in (one, other, one, other):
            await asking.send(request)
        first, second = await asyncio.gather(
            one.reply(request.request_id), other.reply(request.request_id)
        )
        assert first == second
        assert first.success
    assert server.statistics().spawns == 1


async def test_same_id_with_another_body_is_another_request(server: ZmqAgentServer) -> None:
    async with peer(server.endpoint) as asking:
        responses = [
            await asking.ask(
                SpawnRequest(
                    request_id="always the same",
                    config=AgentConfig(model_backend="sh", task="exec sleep 60", name=name),
                )
            )
            for name in ("one", "two")
        ]
    assert len({response.agent_info.id for response in responses}) == 2


async def test_refusal_for_lack_of_room_is_not_remembered(start_server: StartServer) -> None:
    server = await start_server(max_agents=1)
    async with peer(server.endpoint) as asking:
        first = await asking.spawn("exec sleep 60")
        request = SpawnRequest(
            request_id=new_id(), config=AgentConfig(model_backend="sh", task="true")
        )
        assert (await asking.ask(request)).error.startswith("busy: ")
        await asking.data(first, "kill")
        await asking.end(first)
        assert (await asking.ask(request)).success
