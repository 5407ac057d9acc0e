"""Limits and reserves of a server: refused in words, and nothing half done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import AgentInfo, HealthCheckRequest, ListAgentsRequest
from raw_peers import Peer, new_id, peer

if TYPE_CHECKING:
    from conftest import StartServer
    from descartes_fast.server import ZmqAgentServer


async def listed(asking: Peer) -> list[AgentInfo]:
    response = await asking.ask(ListAgentsRequest(request_id=new_id()))
    return list(response.agents)


async def test_agents_above_the_limit_are_refused_and_ended_ones_do_not_count(
    start_server: StartServer,
) -> None:
    server = await start_server(max_agents=3)
    async with peer(server.endpoint) as asking:
        for _ in range(5):
            await asking.end(await asking.spawn("true"))
        agents = [await asking.spawn("exec sleep 60") for _ in range(3)]
        refused = await asking.spawn_response("exec sleep 60")
        assert (refused.error or "").startswith("busy: 3 agents")
        assert len(await listed(asking)) == 8
        await asking.data(agents[0], "kill")
        await asking.end(agents[0])
        await asking.spawn("exec sleep 60")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"disk_reserve_bytes": 2**60}, "disk space"),
        ({"fd_reserve": 2**30}, "file descriptors"),
    ],
)
async def test_below_a_reserve_spawns_are_refused_and_the_server_is_not_healthy(
    start_server: StartServer, settings: dict[str, Any], words: str
) -> None:
    server = await start_server(**settings)
    async with peer(server.endpoint) as asking:
        refused = await asking.spawn_response("true")
        assert (refused.error or "").startswith("busy: ")
        assert words in (refused.error or "")
        health = await asking.ask(HealthCheckRequest(request_id=new_id()))
        assert not health.healthy
        assert words in health.metadata["reason"]
        assert await listed(asking) == []


async def test_output_over_the_limit_stops_spawns_until_the_oldest_that_ended_gives_room(
    start_server: StartServer,
) -> None:
    server = await start_server(state_limit_bytes=1_000_000)
    async with peer(server.endpoint) as asking:
        first = await asking.spawn("head -c 700000 /dev/zero")
        await asking.end(first)
        second = await asking.spawn("head -c 700000 /dev/zero; exec sleep 60")
        async with asyncio.timeout(10):
            while (await asking.ask(HealthCheckRequest(request_id=new_id()))).healthy:
                pass
        response = await asking.spawn_response("exec sleep 60")
        assert (response.error or "").startswith("busy: the agents' output takes ")
        await asking.data(second, "kill")
        await asking.end(second)
        async with asyncio.timeout(10):
            while not (await asking.spawn_response("exec sleep 60")).success:
                pass
        gone = await asking.control(first, "get_status")
        assert (gone.error or "").startswith("not_found: ")
        assert (await asking.data(second, "get_status"))["stdout_bytes"] == 700_000


async def test_last_ended_agents_are_kept_and_the_output_of_others_is_removed(
    start_server: StartServer,
) -> None:
    server = await start_server(retain_agents=2)
    async with peer(server.endpoint) as asking:
        agents = []
        for _ in range(5):
            agents.append(await asking.spawn("echo x"))
            await asking.end(agents[-1])
        assert [info.id for info in await listed(asking)] == [agents[4].id, agents[3].id]
        gone = await asking.control(agents[0], "get_status")
        assert (gone.error or "").startswith("not_found: ")
        folder = server.config.state_path() / "agents"
        kept = {str(agent.id) for agent in agents[3:]}
        async with asyncio.timeout(5):
            while {entry.name for entry in folder.iterdir()} != kept:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_ended_agents_are_dropped_at_their_age(start_server: StartServer) -> None:
    server = await start_server(retain_secs=0.05, status_update_interval_secs=0.02)
    async with peer(server.endpoint) as asking:
        await asking.spawn("true")
        running = await asking.spawn("exec sleep 60")
        async with asyncio.timeout(5):
            while [info.id for info in await listed(asking)] != [running.id]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_agent_that_waits_for_its_reader_goes_on_when_it_is_read(
    start_server: StartServer,
) -> None:
    total = 1_000_000
    server = await start_server(output_limit_bytes=100_000, output_policy="wait")
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn(f"head -c {total} /dev/zero")
        read = 0
        while True:
            data = await asking.data(agent, "read_stdout", {"wait_secs": 5})
            assert data["offset"] == read
            read = data["next_offset"]
            if data["eof"]:
                break
            status = await asking.data(agent, "get_status")
            assert status["stdout_bytes"] - read <= 100_000 + 65536
        assert read == total
        assert (await asking.data(agent, "get_status"))["status"] == "completed"


async def test_read_of_trimmed_output_begins_with_what_is_left_and_says_where(
    start_server: StartServer,
) -> None:
    server = await start_server(output_limit_bytes=262_144)
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("head -c 5000000 /dev/zero; printf end")
        await asking.end(agent)
        data = await asking.data(agent, "read_stdout", {"offset": 10})
        assert data["offset"] > 10
        assert data["next_offset"] == data["offset"] + data["bytes"]
        cursor = await asking.data(agent, "read_stdout")
        assert cursor["offset"] == data["offset"]
        last = await asking.data(agent, "read_stdout", {"offset": 5_000_000, "encoding": "text"})
        assert (last["data"], last["eof"]) == ("end", True)


async def test_statistics_count_what_happened(server: ZmqAgentServer) -> None:
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("echo x")
        await asking.end(agent)
        await asking.spawn_response("x", "no-such-backend")
        running = await asking.spawn("exec sleep 60")
        await listed(asking)
        await asking.ask(HealthCheckRequest(request_id=new_id()))
        counted = server.statistics()
        assert (counted.spawns, counted.spawn_failures, counted.errors) == (2, 1, 1)
        assert (counted.lists, counted.health_checks) == (1, 1)
        assert counted.commands >= 2
        assert counted.clients == 1
        assert counted.agents_by_status == {"completed": 1, "running": 1}
        assert counted.requests_received == counted.replies_sent
        assert counted.request_bytes > 0
        assert counted.reply_bytes > 0
        assert counted.started_at <= running.started_at
