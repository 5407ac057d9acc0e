"""What a person sees: tables, short ids, progress, where stdout is a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest

from command_line import COMMAND, CommandLine, clean_environment

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def test_ps_draws_a_table_with_a_header_and_short_ids(cli: CommandLine) -> None:
    agent_id = cli.ended("echo hello")
    code, seen = cli.on_terminal("ps")
    assert code == 0
    assert "STATUS" in seen
    assert "completed" in seen
    assert "ago" in seen
    assert agent_id[:8] in seen
    assert agent_id not in seen


def _rows(seen: str) -> list[str]:
    return [line.rstrip() for line in _ESCAPES.sub("", seen).splitlines() if line.strip()]


def _read_lines(terminal: int, count: int) -> str:
    """Return what a terminal shows, up to the end of a line."""
    seen = b""
    while seen.count(b"\n") < count or not seen.endswith(b"\n"):
        seen += os.read(terminal, 4096)
    return seen.decode()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_ps_cuts_only_the_task_to_the_width(cli: CommandLine, width: int) -> None:
    agent_id = cli.spawn("sleep 60; true " + "x" * 500, "--name", "sleeper")
    code, seen = cli.on_terminal("ps", COLUMNS=str(width))
    cli("kill", agent_id)
    header, row = _rows(seen)
    assert code == 0
    assert header.split() == ["ID", "NAME", "STATUS", "BACKEND", "STARTED", "TASK"]
    assert row.split()[:4] == [agent_id[:8], "sleeper", "running", "sh"]
    assert row.endswith("\u2026")
    assert len(row) == width


def test_ps_cuts_a_long_name_where_the_task_alone_does_not_do(cli: CommandLine) -> None:
    agent_id = cli.spawn("true", "--wait", "--name", "n" * 100)
    header, row = _rows(cli.on_terminal("ps", COLUMNS="80")[1])
    assert row.startswith(f"{agent_id[:8]}  nnn")
    assert "completed  sh" in row
    assert row.endswith("true")
    assert header.endswith("TASK")
    assert len(row) <= 80


def test_status_and_health_are_two_columns(cli: CommandLine) -> None:
    agent_id = cli.ended("true")
    _, seen = cli.on_terminal("status", agent_id)
    assert f"id             {agent_id}" in seen
    assert "exit_code      0" in seen
    _, seen = cli.on_terminal("health")
    assert "healthy        yes" in seen


def test_watch_shows_a_clock_and_a_short_id(cli: CommandLine) -> None:
    agent_id = cli.spawn("exit 3")
    cli("wait", agent_id)
    code, seen = cli.on_terminal("watch", agent_id)
    assert code == 0
    (line,) = _rows(seen)
    assert line.split()[1:] == [agent_id[:8], "failed", "exit", "3"]


def test_ctrl_c_leaves_the_line(cli: CommandLine) -> None:
    ours, theirs = pty.openpty()
    environment = clean_environment(DESCARTES_FAST_ENDPOINT=cli.endpoint, TERM="xterm")
    agent_id = cli.spawn("sleep 60")
    with subprocess.Popen(
        [*COMMAND, "watch"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as watching:
        os.close(theirs)
        assert agent_id[:8] in _read_lines(ours, 1)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=20) == 130
        assert _read_lines(ours, 1) == "\r\n"
        os.close(ours)
    cli("kill", agent_id)


def test_spawn_many_shows_its_progress(cli: CommandLine) -> None:
    code, seen = cli.on_terminal("spawn", "--backend", "sh", "--count", "3", "--wait", "true")
    assert code == 0
    assert "starting" in seen
    assert "3/3" in seen
    assert "running" in seen


def test_serve_says_where_it_is_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    anywhere = "tcp://127.0.0.1:0"
    words = ["serve", "--endpoint", anywhere, "--pub-endpoint", anywhere, "--server-id", "seen"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *words, "--state-dir", str(tmp_path / "state")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=clean_environment(TERM="xterm"),
    ) as server:
        os.close(theirs)
        seen = b""
        while b"status and logs" not in seen or not seen.endswith(b"\n"):
            seen += os.read(ours, 4096)
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0
        os.close(ours)
    assert b"server seen is ready" in seen
    assert b"tcp://127.0.0.1:0" not in seen


def test_spawn_follow_left_by_ctrl_c_tells_it_on_one_line(cli: CommandLine) -> None:
    ours, theirs = pty.openpty()
    environment = clean_environment(DESCARTES_FAST_ENDPOINT=cli.endpoint, TERM="xterm")
    words = ["spawn", "--backend", "sh", "--follow", "echo ready; exec sleep 60"]
    with subprocess.Popen(
        [*COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as spawning:
        os.close(theirs)
        assert _read_lines(ours, 1) == "ready\r\n"
        spawning.send_signal(signal.SIGINT)
        assert spawning.wait(timeout=20) == 130
        seen = _read_lines(ours, 2)
        os.close(ours)
    (agent_id,) = cli("ps", "-q", "--active").stdout.decode().split()
    cli("kill", agent_id)
    short = agent_id[:8]
    line = f"descartes-fast: agent {short} runs on; to stop it: descartes-fast stop {short}"
    assert seen == f"\r\n{line}\r\n"
    assert len(line) <= 80
