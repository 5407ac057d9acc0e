"""Queries of a stream whose front was trimmed say so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raw_peers import peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def test_query_of_a_trimmed_stream_says_where_it_begins(
    start_server: Callable[..., Awaitable[Any]],
) -> None:
    server = await start_server(output_limit_bytes=256 * 1024)
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("echo all >&2; seq 1000000")
        await asking.end(agent)
        found = await asking.data(agent, "query_output", {"max_lines": 1})
        read = await asking.data(agent, "read_stdout", {"offset": 0, "max_bytes": 1})
        assert found["stdout"] == ["1000000"]
        assert 0 < found["stdout_lines"] < 1_000_000
        assert found["stdout_start"] == read["offset"] > 0
        assert (found["stderr"], found["stderr_lines"], found["stderr_start"]) == (["all"], 1, 0)
