"""Writes to stdin are done once for each request, whatever their requests call themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from descartes_fast import BatchControlCommand, ControlCommand, ControlCommandType
from raw_peers import new_id, peer

if TYPE_CHECKING:
    from uuid import UUID

    from descartes_fast.server import ZmqAgentServer


def write(agent_id: UUID, data: str, request_id: str) -> ControlCommand:
    return ControlCommand(
        request_id=request_id,
        agent_id=agent_id,
        command_type=ControlCommandType.WRITE_STDIN,
        payload={"data": data},
    )


async def test_two_clients_with_the_same_request_id_both_write(server: ZmqAgentServer) -> None:
    async with peer(server.endpoint) as first, peer(server.endpoint) as second:
        agent = await first.spawn("cat")
        assert (await first.ask(write(agent.id, "one ", "1"))).success
        assert (await second.ask(write(agent.id, "two ", "1"))).success
        # Sent again it is not done again.
        assert (await second.ask(write(agent.id, "two ", "1"))).success
        await first.control(agent, "write_stdin", {"data": "end", "close": True})
        assert await first.read_to_end(agent) == "one two end"


async def test_batch_writes_as_often_as_an_agent_is_given(server: ZmqAgentServer) -> None:
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("cat")
        batch = BatchControlCommand(
            request_id=new_id(),
            agent_ids=[agent.id, agent.id],
            command_type=ControlCommandType.WRITE_STDIN,
            payload={"data": "x"},
        )
        assert (await asking.ask(batch)).successful == 2
        await asking.control(agent, "write_stdin", {"data": "", "close": True})
        assert await asking.read_to_end(agent) == "xx"
