"""A regular expression that is huge, or becomes so: bounded in time, and nobody else waits."""

from __future__ import annotations

import asyncio
import time

from descartes_fast import AgentConfig, AgentTimeout, InvalidContext, ZmqClient, connect

LINES = "yes $(head -c 2000 /dev/zero | tr '\\0' a)b | head -n 100"

PATTERNS = {
    "repeated-repeats": "(((a{30}){30}){30}){30}",
    "large-repeats": "(a{1000}){1000}",
    "repeated-classes": r"([\w\W]{1000}){1000}x",
    "many-alternatives": "|".join(f"word{number}" for number in range(300_000)),
    "deep-nesting": "(" * 200_000 + "a" + ")" * 200_000,
    "unclosed-nesting": "(" * 1_000_000,
    "long-text": "a" * 5_000_000,
    "wide-alternation-of-states": "(a|b)*a" + "(a|b)" * 200,
    "unicode-classes": r"(\pL|\pN|\pS){500}z",
    "many-stars": ".*" * 5_000 + "z",
}


async def test_pattern_that_is_too_much_is_bounded_and_delays_nobody(client: ZmqClient) -> None:
    agent = await client.spawn_remote(AgentConfig(model_backend="sh", task=LINES))
    await client.wait_agent(agent, timeout_secs=20)
    async with connect(client.config.endpoint) as other:
        for name, pattern in PATTERNS.items():
            began = time.perf_counter()
            query = asyncio.create_task(
                client.query_agent_output(agent, "stdout", filter=pattern, limit=1)
            )
            slowest = 0.0
            while not query.done():
                asked = time.perf_counter()
                await other.get_agent_status(agent)
                slowest = max(slowest, time.perf_counter() - asked)
            refusal = query.exception()
            assert refusal is None or isinstance(refusal, (InvalidContext, AgentTimeout)), name
            assert len(str(refusal)) < 2500, name  # though it may quote the pattern
            assert time.perf_counter() - began < 20, name
            assert slowest < 2.0, name
