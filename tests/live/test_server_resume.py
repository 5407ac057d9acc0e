"""Resume wakes whatever stopped the agent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from raw_peers import peer

if TYPE_CHECKING:
    from descartes_fast.server import ZmqAgentServer


async def test_agent_that_stopped_itself_is_resumed(server: ZmqAgentServer) -> None:
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("echo ready; kill -STOP $$; echo awake")
        pid = (await asking.data(agent, "get_status"))["pid"]
        async with asyncio.timeout(5):
            while state_of(pid) != "T":  # noqa: ASYNC110 - the system tells nobody but its parent
                await asyncio.sleep(0.01)
        assert await asking.data(agent, "resume") == {"resumed": True}
        assert await asking.read_to_end(agent) == "ready\nawake\n"


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
