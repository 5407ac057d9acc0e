"""Agents whose children leave them (setsid, double fork, nohup): these end with the agent."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

import pytest

from descartes_fast import AgentConfig, AgentInfo, AgentStatus, ZmqClient
from faults.processes import running

GONE_SECS = 1.0

# How a child gets away; {sleep} is a command that can be told from every other process.
ESCAPES = {
    "background": "{sleep} &",
    "nohup": "nohup {sleep} >/dev/null 2>&1 &",
    "setsid": "setsid {sleep} >/dev/null 2>&1 &",
    "setsid-holding-the-output": "setsid {sleep} &",
    "double-fork": "(setsid sh -c '{sleep} & exec {sleep}' >/dev/null 2>&1 &) &",
    "orphan-of-an-orphan": "setsid sh -c '(setsid {sleep} &) &' >/dev/null 2>&1 &",
    "other-directory-and-no-streams": "(cd / && exec setsid {sleep} <&- >&- 2>&-) &",
}


class Family:
    """An agent with children that escape in one way, all of which run."""

    def __init__(self, agent: AgentInfo, sleep: str) -> None:
        self.agent = agent
        self.sleep = sleep

    @classmethod
    async def start(cls, client: ZmqClient, escape: str, leader: str) -> Family:
        """Start an agent that lets children escape, runs ``leader``, and exits at a line."""
        sleep = f"sleep 3600.{uuid4().int % 10**12:012}"
        task = f"{leader}\n{escape.format(sleep=sleep)}\nread line"
        agent = await client.spawn_remote(AgentConfig(model_backend="sh", task=task))
        family = cls(agent, sleep)
        expected = 2 if escape.count("{sleep}") == 2 else 1
        async with asyncio.timeout(10):
            while len(family.survivors()) < expected:  # noqa: ASYNC110  (no event tells)
                await asyncio.sleep(0.01)
        return family

    def survivors(self) -> list[int]:
        """Return the children that run; not the shells that wait for one."""
        return [pid for pid in running(self.sleep) if _is_sleep(pid)]


def _is_sleep(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm") as comm:
            return comm.read() == "sleep\n"
    except OSError:
        return False


async def start_families(client: ZmqClient, leader: str) -> list[Family]:
    starts = [Family.start(client, escape, leader) for escape in ESCAPES.values()]
    return list(await asyncio.gather(*starts))


async def assert_all_gone(client: ZmqClient, families: list[Family], *, within_secs: float) -> None:
    """Check that nothing survives the time, nor an agent's being told to have ended."""
    began = time.monotonic()
    for name, family in zip(ESCAPES, families, strict=True):
        await client.wait_agent(family.agent, timeout_secs=15)
        assert family.survivors() == [], name
    assert time.monotonic() - began < within_secs


async def test_kill_leaves_no_survivor(client: ZmqClient) -> None:
    families = await start_families(client, "trap '' TERM HUP")
    for family in families:
        await client.kill_agent(family.agent)
    await assert_all_gone(client, families, within_secs=GONE_SECS)


async def test_stop_leaves_no_survivor_after_its_grace(client: ZmqClient) -> None:
    families = await start_families(client, "trap '' TERM HUP")
    for family in families:
        await client.stop_agent(family.agent, grace_secs=0.5)
    assert all(family.survivors() for family in families)
    await assert_all_gone(client, families, within_secs=0.5 + GONE_SECS)


async def test_stop_that_the_agent_obeys_leaves_no_survivor(client: ZmqClient) -> None:
    families = await start_families(client, "trap 'exit 0' TERM")
    for family in families:
        await client.stop_agent(family.agent, grace_secs=60)
    # A leader's exit gives what it left behind two seconds.
    await assert_all_gone(client, families, within_secs=2 + GONE_SECS)


@pytest.mark.parametrize("leader", ["", "trap '' TERM HUP"], ids=["obedient", "deaf"])
async def test_exit_leaves_no_survivor(client: ZmqClient, leader: str) -> None:
    families = await start_families(client, leader)
    for family in families:
        await client.write_agent_stdin(family.agent, b"\n")
    await assert_all_gone(client, families, within_secs=(2 if leader else 0) + GONE_SECS)
    statuses = {(await client.wait_agent(family.agent)).status for family in families}
    assert statuses == {AgentStatus.COMPLETED}
