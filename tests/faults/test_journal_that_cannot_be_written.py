"""The disk refuses the journal: nobody waits, what would be lost is refused, stop and kill work."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import AgentConfig, AgentStatus, ServerBusy, connect
from descartes_fast.server import journal as journal_module
from descartes_fast.server.journal_store import JournalStore
from raw_peers import new_id, peer

if TYPE_CHECKING:
    from conftest import StartServer


class Disk:
    """Refuses to write a journal while ``is_full``."""

    def __init__(self) -> None:
        self.is_full = False
        self._write = JournalStore.write

    def write(self, store: JournalStore, changes: Any) -> None:
        if self.is_full:
            raise sqlite3.OperationalError("database or disk is full")
        self._write(store, changes)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(JournalStore, "write", lambda store, changes: disk.write(store, changes))
    monkeypatch.setattr(journal_module, "_RETRY_SECS", 0.02)
    return disk


async def test_full_disk_refuses_work_lets_agents_end_and_is_over_when_there_is_room(
    start_server: StartServer, disk: Disk
) -> None:
    server = await start_server(status_update_interval_secs=0.05)
    async with connect(server.endpoint) as client:
        stopped, killed, signalled, kept = [
            await client.spawn_remote(_config("exec sleep 1000")) for _ in range(4)
        ]
        disk.is_full = True
        with pytest.raises(ServerBusy, match="disk is full"):
            await client.spawn_remote(_config("exec sleep 1000"))
        for work in (
            client.signal_agent(kept.id, "USR1"),
            client.write_agent_stdin(kept.id, b"x"),
            client.pause_agent(kept.id),
            client.send_action_to_agent(kept.id, "echo", {}),
        ):
            with pytest.raises(ServerBusy, match="disk is full"):
                await work
        health = await client.health_check()
        assert not health.healthy
        assert health.metadata is not None
        assert "disk is full" in health.metadata["reason"]

        await client.stop_agent(stopped.id)
        await client.kill_agent(killed.id)
        await client.signal_agent(signalled.id, "KILL")
        for agent in (stopped, killed, signalled):
            end = await client.wait_agent(agent.id, timeout_secs=10)
            assert end.status is AgentStatus.TERMINATED
        assert len(await client.list_remote_agents()) == 4

        disk.is_full = False
        async with asyncio.timeout(10):
            while not (await client.health_check()).healthy:  # noqa: ASYNC110, RUF100
                await asyncio.sleep(0.01)
        await client.signal_agent(kept.id, "CONT")
        await client.spawn_remote(_config("true"))


async def test_request_that_was_done_when_the_disk_filled_up_has_its_answer(
    start_server: StartServer, disk: Disk
) -> None:
    server = await start_server()

    async def fill(info: Any, params: Any) -> str:
        disk.is_full = True
        return "done"

    server.register_action("fill", fill)
    async with connect(server.endpoint) as client:
        agent = await client.spawn_remote(_config("exec sleep 1000"))
        assert (await client.send_action_to_agent(agent.id, "fill", {})).data == "done"
        await client.kill_agent(agent.id)
        await client.wait_agent(agent.id, timeout_secs=10)
        disk.is_full = False


async def test_agent_that_waits_for_its_reader_goes_on_when_there_is_room_again(
    start_server: StartServer, disk: Disk
) -> None:
    server = await start_server(output_policy="wait", output_limit_bytes=65536)
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("exec head -c 300000 /dev/zero")
        await asking.data(agent, "read_stdout", {"offset": 65535, "wait_secs": 10})
        disk.is_full = True
        # It was done when the disk turned out to be full, so it is answered.
        found = await asking.data(agent, "read_stdout", {"max_bytes": 65536})
        assert found["next_offset"] == 65536
        disk.is_full = False
        async with asyncio.timeout(10):
            while not found["eof"]:
                answer = await asking.control(agent, "read_stdout", {"wait_secs": 2})
                if answer.success:  # else the disk was still full when it came
                    found = answer.data
        assert found["next_offset"] == 300_000


async def test_journal_that_is_removed_makes_the_server_unhealthy(
    start_server: StartServer,
) -> None:
    server = await start_server(status_update_interval_secs=0.05)
    async with connect(server.endpoint) as client:
        assert (await client.health_check()).healthy
        (server.config.state_path() / "journal.sqlite").unlink()
        async with asyncio.timeout(10):
            while (await client.health_check()).healthy:  # noqa: ASYNC110, RUF100
                await asyncio.sleep(0.01)
        with pytest.raises(ServerBusy, match="removed or replaced"):
            await client.spawn_remote(_config("true"))


def _config(task: str) -> AgentConfig:
    return AgentConfig(name=new_id(), model_backend="sh", task=task)
