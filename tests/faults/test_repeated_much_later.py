"""A request comes again after much else was answered, and gets the answer it would have had."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from descartes_fast import (
    AgentConfig,
    BatchControlCommand,
    CustomActionRequest,
    SpawnRequest,
)
from raw_peers import batch_of, command_of, new_id, peer

if TYPE_CHECKING:
    from conftest import StartServer
    from descartes_fast.server import ZmqAgentServer

MIB = 1024 * 1024


def batch_signal(agents: list[UUID]) -> BatchControlCommand:
    return batch_of(agents, "signal", {"signal": "URG"})


async def test_what_is_read_is_neither_in_the_memory_nor_in_the_journal(
    start_server: StartServer,
) -> None:
    server = await start_server(replay_bytes=2 * MIB)
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("head -c 10000000 /dev/urandom; exec sleep 1000")
        await asking.data(agent, "read_stdout", {"offset": 9_999_999, "wait_secs": 10})
        reads = [command_of(agent.id, "read_stdout", {"max_bytes": MIB}) for _ in range(8)]
        replies = [await asking.ask(read) for read in reads]
        assert sum(reply.data["bytes"] for reply in replies) > 4 * MIB
        assert [await asking.ask(read) for read in reads] == replies
        files = server.config.state_path().glob("journal.sqlite*")
        assert sum(file.stat().st_size for file in files) < MIB


async def test_who_was_in_a_batch_is_neither_in_the_memory_nor_in_the_journal(
    start_server: StartServer,
) -> None:
    server = await start_server(replay_bytes=MIB)
    async with peer(server.endpoint) as asking:
        agents = [(await asking.spawn("exec sleep 1000")).id for _ in range(2)]
        batches = [batch_signal(agents * 1000) for _ in range(30)]
        replies = [await asking.ask(batch) for batch in batches]
        assert sum(reply.successful for reply in replies) == 60_000
        await asking.ask(command_of(agents[0], "pause"))
        assert [await asking.ask(batch) for batch in batches] == replies
        await server.aclose()
        files = server.config.state_path().glob("journal.sqlite*")
        assert sum(file.stat().st_size for file in files) < MIB


async def test_batch_that_did_not_go_well_for_all_alike_is_kept_whole(
    server: ZmqAgentServer,
) -> None:
    async with peer(server.endpoint) as asking:
        agents = [await asking.spawn("exec sleep 1000") for _ in range(3)]
        await asking.data(agents[1], "pause")
        unlike = batch_signal([agent.id for agent in agents] * 20)
        with_a_stranger = batch_signal([agents[0].id, uuid4()] * 20)
        first = [await asking.ask(unlike), await asking.ask(with_a_stranger)]
        assert {result.status for result in first[0].results} == {"running", "paused"}
        assert (first[1].successful, first[1].failed) == (20, 20)
        await asking.data(agents[1], "resume")
        await asking.data(agents[0], "pause")
        assert [await asking.ask(unlike), await asking.ask(with_a_stranger)] == first


async def test_read_whose_bytes_were_trimmed_since_says_so_when_it_is_repeated(
    start_server: StartServer,
) -> None:
    server = await start_server(output_limit_bytes=256 * 1024)
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("head -c 65536 /dev/zero; read x; head -c 900000 /dev/zero")
        read = command_of(agent.id, "read_stdout", {"max_bytes": 65536, "wait_secs": 10})
        assert (await asking.ask(read)).success
        await asking.data(agent, "write_stdin", {"data": "\n"})
        await asking.end(agent)
        again = await asking.ask(read)
        assert not again.success
        assert "this was read before" in again.error
        assert "trimmed" in again.error


async def test_read_of_an_agent_that_waits_for_its_readers_is_kept_whole(
    start_server: StartServer,
) -> None:
    server = await start_server(output_limit_bytes=65536, output_policy="wait")
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("exec head -c 1000000 /dev/urandom")
        replies: list[tuple[Any, Any]] = []
        while not replies or not replies[-1][1].data["eof"]:
            read = command_of(agent.id, "read_stdout", {"max_bytes": 65536, "wait_secs": 10})
            replies.append((read, await asking.ask(read)))
        for read, reply in replies:
            assert await asking.ask(read) == reply


async def test_spawn_whose_reply_was_pushed_out_is_known_by_its_agent(
    start_server: StartServer,
) -> None:
    server = await start_server(replay_bytes=4000)
    async with peer(server.endpoint) as asking:
        config = AgentConfig(model_backend="sh", task="exec sleep 1000")
        spawn = SpawnRequest(request_id=new_id(), config=config)
        first = await asking.ask(spawn)
        for _ in range(20):
            await asking.data(first.agent_info, "signal", {"signal": "URG"})
        assert (await asking.ask(spawn)).agent_info.id == first.agent_info.id
    assert server.statistics().spawns == 1


async def test_what_was_done_is_answered_where_there_is_no_room_for_work(
    server: ZmqAgentServer,
) -> None:
    async with peer(server.endpoint) as asking:
        config = AgentConfig(model_backend="sh", task="exec sleep 1000")
        spawn = SpawnRequest(request_id=new_id(), config=config)
        first = await asking.ask(spawn)
        agent = first.agent_info
        waiting = command_of(agent.id, "read_stdout", {"wait_secs": 20})
        await asking.send(waiting)
        for _ in range(1023):
            await asking.send(command_of(agent.id, "read_stderr", {"offset": 0, "wait_secs": 20}))
        refused = await asking.ask(command_of(agent.id, "signal", {"signal": "URG"}))
        assert refused.error.startswith("busy: ")
        assert await asking.ask(spawn) == first
        repeated = await asking.ask(waiting)
        assert "is being carried out" in repeated.error
        async with peer(server.endpoint) as other:
            await other.data(agent, "kill")
            await other.end(agent)


async def test_action_that_the_servers_end_cut_short_is_not_called_undone(
    start_server: StartServer,
) -> None:
    server = await start_server(stop_grace_secs=0.1)
    begun = asyncio.Event()

    async def begin(info: Any, params: Any) -> None:
        begun.set()
        await asyncio.sleep(1000)

    server.register_action("begin", begin)
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("exec sleep 1000")
        request = CustomActionRequest(request_id=new_id(), agent_id=agent.id, action="begin")
        await asking.send(request)
        await begun.wait()
        closing = asyncio.create_task(server.aclose())
        answer = await asking.reply(request.request_id)
        await closing
    assert not answer.success
    assert "may have been done" in answer.error
