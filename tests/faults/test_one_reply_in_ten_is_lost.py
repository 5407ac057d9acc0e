"""One reply in ten is lost: who asks again under the same id gets one process for each spawn."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import (
    AgentConfig,
    AgentInfo,
    AgentTimeout,
    SpawnResponse,
    ZmqClient,
    connect,
    deserialize_zmq_message,
)
from faults.proxy import Proxy

if TYPE_CHECKING:
    from conftest import StartServer

COUNT = int(os.environ.get("TEST_LOSSY_SPAWNS", "200"))
IN_FLIGHT = 64
SEED = int(os.environ.get("TEST_SEED", "1"))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.mark.timeout(60 + COUNT // 10)
async def test_spawns_repeated_under_their_ids_start_one_process_each(
    start_server: StartServer,
) -> None:
    server = await start_server(max_agents=COUNT, retain_agents=COUNT)
    dice = random.Random(SEED)
    lost_spawns = Counter[bool]()

    def loses(frames: list[bytes]) -> bool:
        lost = dice.random() < 0.1
        answer = deserialize_zmq_message(frames[-1])
        lost_spawns[lost] += isinstance(answer, SpawnResponse)
        return lost

    with tempfile.TemporaryDirectory() as folder:
        births = Path(folder) / "births"
        async with Proxy(server.endpoint, loses) as proxy, connect(proxy.endpoint) as client:
            tasks = [f"echo {number} >> {births}; exit {number % 100}" for number in range(COUNT)]
            agents = await spawn_all(client, tasks)
        assert proxy.lost > 0
        async with connect(server.endpoint) as client:
            for number, agent in enumerate(agents):
                end = await client.wait_agent(agent, timeout_secs=30)
                assert end.exit_code == number % 100
            listed = {info.id for info in await client.list_remote_agents()}
        born = Counter(map(int, births.read_text().split()))
    assert born == Counter(range(COUNT))
    assert listed == {agent.id for agent in agents}
    assert len(listed) == COUNT
    print(f"{COUNT} spawns, {sum(born.values())} processes, {lost_spawns[True]} answers lost")


async def spawn_all(client: ZmqClient, tasks: list[str]) -> list[AgentInfo]:
    room = asyncio.Semaphore(IN_FLIGHT)

    async def spawn(number: int) -> AgentInfo:
        config = AgentConfig(model_backend="sh", task=tasks[number])
        async with room:
            while True:
                try:
                    return await client.spawn_remote(config, 2, request_id=f"spawn {number}")
                except AgentTimeout:
                    continue

    return await asyncio.gather(*map(spawn, range(len(tasks))))
