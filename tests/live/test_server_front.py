"""The thread before the event loop, in a whole server: nobody waits for a loop that is busy."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
import zmq

from descartes_fast import (
    AgentStatus,
    CommandResponse,
    ControlCommandType,
    deserialize_zmq_message,
    serialize_zmq_message,
)
from descartes_fast._core.frames import LIBZMQ_FOUND
from raw_peers import ANSWER_SECS, command_of, peer

if TYPE_CHECKING:
    from conftest import StartServer
    from descartes_fast.server import ZmqAgentServer

needs_front = pytest.mark.skipif(not LIBZMQ_FOUND, reason="libzmq's functions are not found here")


class Blocking:
    """A REQ that asks and waits, on whatever thread."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        self._socket.set(zmq.RCVTIMEO, int(ANSWER_SECS * 1000))
        self._socket.set(zmq.LINGER, 0)
        self._socket.connect(endpoint)

    def ask(self, agent_id: UUID, command: ControlCommandType) -> CommandResponse:
        self._socket.send(serialize_zmq_message(command_of(agent_id, command.value)))
        response = deserialize_zmq_message(self._socket.recv())
        assert isinstance(response, CommandResponse)
        assert response.success, response.error
        return response

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@needs_front
async def test_get_status_is_answered_while_the_loop_is_busy(server: ZmqAgentServer) -> None:
    asked = []
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("exec sleep 60")
    blocking = Blocking(server.endpoint)
    try:
        # The loop admits the client and gives the first answer.
        await asyncio.to_thread(blocking.ask, agent.id, ControlCommandType.GET_STATUS)
        before = server.statistics()

        def ask() -> None:
            for _ in range(50):
                asked.append(blocking.ask(agent.id, ControlCommandType.GET_STATUS).status)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(ANSWER_SECS)  # on the loop, which can do nothing else meanwhile
        after = server.statistics()
    finally:
        blocking.close()
    assert asked == [AgentStatus.RUNNING] * 50
    for name in ("commands", "requests_received", "replies_sent"):
        assert getattr(after, name) - getattr(before, name) == 50
    assert after.request_bytes > before.request_bytes
    assert after.reply_bytes > before.reply_bytes


async def test_who_was_told_of_a_pause_never_sees_the_agent_running(
    server: ZmqAgentServer,
) -> None:
    expected = {
        ControlCommandType.PAUSE: AgentStatus.PAUSED,
        ControlCommandType.RESUME: AgentStatus.RUNNING,
    }
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("exec sleep 60")
        watched = asyncio.Event()

        async def watch() -> None:
            """Have the answer known at any moment, so that an old one could be said."""
            async with peer(server.endpoint) as watching:
                while not watched.is_set():
                    await watching.data(agent, "get_status")
                    # pyzmq waits for nothing where the answer is there: pauses need the loop.
                    await asyncio.sleep(0)

        def change() -> None:
            blocking = Blocking(server.endpoint)
            try:
                for _ in range(60):
                    for command, status in expected.items():
                        told = blocking.ask(agent.id, command)
                        assert told.status is status
                        found = blocking.ask(agent.id, ControlCommandType.GET_STATUS)
                        assert found.status is status
            finally:
                blocking.close()

        watcher = asyncio.create_task(watch())
        try:
            await asyncio.to_thread(change)
        finally:
            watched.set()
            await watcher


@needs_front
async def test_two_servers_in_a_process_have_a_thread_each(start_server: StartServer) -> None:
    def fronts() -> int:
        return [thread.name for thread in threading.enumerate()].count("descartes-fast-front")

    before = fronts()
    first = await start_server()
    second = await start_server()
    assert fronts() == before + 2
    await first.aclose()
    assert fronts() == before + 1
    async with peer(second.endpoint) as asking:
        agent = await asking.spawn("exec sleep 60")
        for _ in range(3):
            assert (await asking.data(agent, "get_status"))["status"] == "running"
    await second.aclose()
    assert fronts() == before


async def test_without_libzmqs_functions_the_loop_answers_and_counts(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("descartes_fast.server.router.LIBZMQ_FOUND", False)
    monkeypatch.setattr("descartes_fast.channel.LIBZMQ_FOUND", False)
    server = await start_server()
    assert "descartes-fast-front" not in [thread.name for thread in threading.enumerate()]
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("exec sleep 60")
        before = server.statistics()
        for _ in range(3):
            assert (await asking.data(agent, "get_status"))["status"] == "running"
        await asking.data(agent, "pause")
        assert (await asking.data(agent, "get_status"))["status"] == "paused"
        after = server.statistics()
    for name in ("commands", "requests_received", "replies_sent"):
        assert getattr(after, name) - getattr(before, name) == 5
