"""``state``: what a directory holds, beside a server and without one; pruning; ending agents."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import COMMAND, CommandLine, clean_environment
from faults.restarts import RestartableServer, restartable_server


@pytest.fixture
def server() -> Iterator[RestartableServer]:
    with restartable_server() as running:
        yield running


@pytest.fixture
def commands(server: RestartableServer) -> CommandLine:
    return CommandLine(server.endpoint, server.folder)


def state(server: RestartableServer, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, "state", "--state-dir", str(server.state), *words],
        capture_output=True,
        env=clean_environment(),
        timeout=40,
        check=False,
    )


def shown(server: RestartableServer) -> dict[str, Any]:
    done = state(server, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.leaves_orphans
def test_state_is_shown_beside_a_server_and_without_one(
    server: RestartableServer, commands: CommandLine
) -> None:
    ended = commands.ended("echo some output; exit 3")
    alive = commands.spawn("exec sleep 60", "--name", "sleeper")
    view = shown(server)
    assert view["server_pid"] == server.pid
    assert view["keeper_pid"] == server.keeper_pid()
    agents = {agent["id"]: agent for agent in view["agents"]}
    assert agents.keys() == {ended, alive}
    assert (agents[ended]["status"], agents[ended]["exit_code"]) == ("failed", 3)
    assert agents[ended]["stdout_bytes"] == len("some output\n")
    assert (agents[alive]["status"], agents[alive]["alive"]) == ("running", True)
    assert agents[alive]["name"] == "sleeper"
    assert view["replies"] >= 2
    assert view["output_bytes"] > 0
    server.kill()
    view = shown(server)
    assert view["server_pid"] is None
    assert view["keeper_pid"] == server.keeper_pid()
    assert [agent["alive"] for agent in view["agents"] if agent["id"] == alive] == [True]
    lines = state(server).stdout.decode().splitlines()
    facts = dict(line.split("\t")[:2] for line in lines)
    assert facts["server"] == "not running"
    assert facts["keeper"] == f"process {view['keeper_pid']}"
    assert facts[alive] == "sleeper"


@pytest.mark.leaves_orphans
def test_prune_forgets_ended_agents_and_their_output_where_no_server_does(
    server: RestartableServer, commands: CommandLine
) -> None:
    ended = commands.ended("echo some output")
    alive = commands.spawn("exec sleep 60")
    refused = state(server, "prune")
    assert refused.returncode == 2
    assert f"a server (process {server.pid}) works with" in refused.stderr.decode()
    server.kill()
    assert json.loads(state(server, "prune", "--older-than", "1h", "--json").stdout) == {
        "pruned": []
    }
    assert sorted(os.listdir(server.state / "agents")) == sorted([ended, alive])
    done = state(server, "prune")
    assert (done.returncode, done.stdout) == (0, b"forgot 1 agent\n")
    assert os.listdir(server.state / "agents") == [alive]
    assert [agent["id"] for agent in shown(server)["agents"]] == [alive]
    server.start()
    assert json.loads(commands("ps", "--json").stdout)[0]["id"] == alive


@pytest.mark.leaves_orphans
def test_stop_ends_the_agents_of_a_server_that_is_gone(
    server: RestartableServer, commands: CommandLine
) -> None:
    agents = [commands.spawn("exec sleep 60"), commands.spawn('trap "exit 5" TERM; read x')]
    commands.ended("exit 1")
    refused = state(server, "stop")
    assert refused.returncode == 2
    assert f"a server (process {server.pid}) works with" in refused.stderr.decode()
    server.kill()
    done = state(server, "stop", "--grace-secs", "2", "--json")
    assert done.returncode == 0, done.stderr
    stopped = {agent["id"]: agent for agent in json.loads(done.stdout)["stopped"]}
    assert stopped.keys() == set(agents)
    assert (stopped[agents[0]]["signal"], stopped[agents[1]]["exit_code"]) == (15, 5)
    assert server.keeper_pid() is None
    assert server.marked_processes() == {}


@pytest.mark.leaves_orphans
def test_state_of_an_older_server_is_shown_pruned_and_stopped(
    server: RestartableServer, commands: CommandLine
) -> None:
    ended, alive = commands.ended("exit 1"), commands.spawn("exec sleep 60")
    server.kill()
    make_version_1(server.state / "journal.sqlite")
    assert {agent["id"] for agent in shown(server)["agents"]} == {ended, alive}
    assert json.loads(state(server, "prune", "--json").stdout) == {"pruned": [ended]}
    assert [agent["id"] for agent in shown(server)["agents"]] == [alive]
    make_version_1(server.state / "journal.sqlite")
    done = state(server, "stop", "--json")
    assert [agent["id"] for agent in json.loads(done.stdout)["stopped"]] == [alive]
    assert server.marked_processes() == {}


def make_version_1(journal: Path) -> None:
    """Make a journal what it was before its agents had rows with numbers."""
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        facts = [name for _, name, *_ in connection.execute("PRAGMA table_info(agents)")]
        names = ", ".join(name for name in facts if name != "row")
        connection.executescript(
            f"""BEGIN;
            ALTER TABLE agents RENAME TO later;
            CREATE TABLE agents ({names.replace("id,", "id BLOB PRIMARY KEY,", 1)});
            INSERT INTO agents SELECT {names} FROM later;
            DROP TABLE later;
            PRAGMA user_version=1;
            COMMIT"""
        )


@pytest.mark.leaves_orphans
@pytest.mark.parametrize("tried", [False, True])
def test_stop_ends_agents_that_keep_a_server_without_their_journal_from_starting(
    server: RestartableServer, commands: CommandLine, tried: bool
) -> None:
    agent = commands.spawn("exec sleep 60")
    server.kill()
    for file in server.state.glob("journal.sqlite*"):
        file.unlink()
    if tried:
        server.launch()
        assert server.process is not None
        assert server.process.wait(20) == 2
        assert "descartes-fast state stop" in server.words()
        assert len(server.marked_processes()) == 1
    done = state(server, "stop", "--json")
    assert done.returncode == 0, done.stderr
    assert [stopped["id"] for stopped in json.loads(done.stdout)["stopped"]] == [agent]
    assert server.keeper_pid() is None
    assert server.marked_processes() == {}
    server.start()


def test_directory_without_a_journal_is_told_and_left_alone(tmp_path: Path) -> None:
    for action in ("show", "prune", "stop"):
        done = subprocess.run(
            [*COMMAND, "state", action, "--state-dir", str(tmp_path / "none")],
            capture_output=True,
            env=clean_environment(),
            timeout=30,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.decode() == (
            f"descartes-fast: there is no journal in {tmp_path / 'none'}\n"
        )
    assert os.listdir(tmp_path) == []


def test_journal_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"this is no database" * 100)
    done = subprocess.run(
        [*COMMAND, "state", "--state-dir", str(tmp_path)],
        capture_output=True,
        env=clean_environment(),
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert b"cannot be read" in done.stderr
