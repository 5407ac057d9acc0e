"""A filter made to be slow: other clients' queries, and the server's end, do not wait for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from descartes_fast import OutputQueryRequest, ZmqOutputStream
from raw_peers import new_id, peer

if TYPE_CHECKING:
    from descartes_fast import AgentInfo
    from descartes_fast.server import ZmqAgentServer

EXPENSIVE = r"(?:.*a.*b){30}|([a-c]{1,900}d)"
"""About 20 microseconds a byte: minutes for what the agent below writes."""

LONG_LINES = "for i in $(seq 200); do head -c 60000 /dev/zero | tr '\\0' a; echo $i; done"


def query(agent: AgentInfo, pattern: str | None) -> OutputQueryRequest:
    return OutputQueryRequest(
        request_id=new_id(), agent_id=agent.id, stream=ZmqOutputStream.STDOUT, filter=pattern
    )


async def test_expensive_filters_hold_up_no_plain_query_and_no_end(server: ZmqAgentServer) -> None:
    async with peer(server.endpoint) as evil, peer(server.endpoint) as other:
        victim = await evil.spawn(LONG_LINES)
        await evil.read_to_end(victim)
        for _ in range(4):
            await evil.send(query(victim, EXPENSIVE))
        began = time.monotonic()
        plain = await other.ask(query(victim, None))
        assert (plain.success, plain.total_lines) == (True, 200)
        assert time.monotonic() - began < 3
        began = time.monotonic()
        await server.aclose()
        assert time.monotonic() - began < 6


async def test_expensive_filter_is_refused_after_its_time(start_server: object) -> None:
    server = await start_server(request_timeout_secs=1.0)  # type: ignore[operator]
    async with peer(server.endpoint) as evil:
        victim = await evil.spawn(LONG_LINES)
        await evil.read_to_end(victim)
        began = time.monotonic()
        refused = await evil.ask(query(victim, EXPENSIVE))
        assert (refused.error or "").startswith("timeout: the query took")
        assert time.monotonic() - began < 4
