"""The keeper is killed: its agents are ended, and the server says what is the matter."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from descartes_fast import HealthCheckRequest
from raw_peers import new_id, peer, subscriber

if TYPE_CHECKING:
    from descartes_fast.server import ZmqAgentServer


def keeper_of(pid: int) -> int:
    """Return the parent of an agent's process."""
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


@pytest.mark.leaves_orphans
async def test_agents_of_a_lost_keeper_end_as_failed_and_spawns_are_refused(
    server: ZmqAgentServer,
) -> None:
    async with peer(server.endpoint) as asking, subscriber(server.pub_endpoint, "status/") as heard:
        agent = await asking.spawn("echo before; exec sleep 60")
        await asking.data(agent, "read_stdout", {"offset": 0, "wait_secs": 5})
        pid = (await asking.data(agent, "get_status"))["pid"]
        os.kill(await asyncio.to_thread(keeper_of, pid), signal.SIGKILL)
        last = (await heard.until_end_of(agent.id))[-1]
        assert last.update_type.value == "error"
        assert "keeper" in (last.message or "")
        data = await asking.data(agent, "get_status")
        assert (data["status"], data["exit_code"]) == ("failed", None)
        health = await asking.ask(HealthCheckRequest(request_id=new_id()))
        assert not health.healthy
        assert "keeper" in health.metadata["reason"]
        refused = await asking.spawn_response("true")
        assert (refused.error or "").startswith("busy: ")
        read = await asking.data(agent, "read_stdout", {"encoding": "text"})
        assert (read["data"], read["eof"]) == ("before\n", True)
