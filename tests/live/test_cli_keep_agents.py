"""``serve --keep-agents`` and ``--no-journal``: what becomes of the agents when a server goes."""

from __future__ import annotations

import json
import time

import pytest

from command_line import CommandLine
from faults.restarts import RestartableServer, restartable_server


def listed(server: RestartableServer) -> dict[str, str]:
    """Return the status of each agent by its id."""
    agents = json.loads(CommandLine(server.endpoint, server.folder)("ps", "--json").stdout)
    return {agent["id"]: agent["status"] for agent in agents}


@pytest.mark.leaves_orphans
def test_kept_agents_run_on_while_there_is_no_server() -> None:
    with restartable_server(started=False) as server:
        commands = CommandLine(server.endpoint, server.folder)
        server.start("--keep-agents")
        agent = commands.spawn("read x; echo got $x; exit 4")
        keeper = server.keeper_pid()
        assert server.stop() == 0
        assert server.keeper_pid() == keeper
        assert len(server.marked_processes()) == 1
        server.start("--keep-agents")
        assert listed(server) == {agent: "running"}
        assert commands("write", agent, "a line").returncode == 0
        assert commands("wait", agent).returncode == 4
        assert commands("logs", agent).stdout == b"got a line\n"
        assert server.stop() == 0


@pytest.mark.leaves_orphans
def test_without_a_journal_agents_end_with_a_killed_server() -> None:
    with restartable_server(started=False) as server:
        commands = CommandLine(server.endpoint, server.folder)
        server.start("--no-journal")
        commands.spawn("exec sleep 60")
        assert len(server.marked_processes()) == 1
        server.kill()
        deadline = time.monotonic() + 10
        while server.marked_processes() or server.keeper_pid() is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.start("--no-journal")
        assert listed(server) == {}
        assert not (server.state / "journal.sqlite").exists()


def test_agents_are_not_kept_without_a_journal() -> None:
    with restartable_server(started=False) as server:
        server.launch("--keep-agents", "--no-journal")
        assert server.process is not None
        assert server.process.wait(20) == 2
        assert "keep_agents needs the journal" in server.words()
