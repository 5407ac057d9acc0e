"""``serve``: announces itself, ends on a signal, refuses what it must."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import COMMAND, CommandLine, clean_environment


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary directory with a path short enough for an ipc endpoint."""
    with tempfile.TemporaryDirectory(prefix="dfast-") as name:
        yield Path(name)


def _serve(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "serve", "--json", "--state-dir", str(folder / "state"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )


def _ipc(folder: Path) -> list[str]:
    commands, events = f"ipc://{folder}/commands", f"ipc://{folder}/events"
    return ["--endpoint", commands, "--pub-endpoint", events]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_its_agents_and_leaves_no_socket_on_a_signal(
    folder: Path, number: signal.Signals
) -> None:
    config = folder / "c.toml"
    config.write_text('[backends.sh]\ncommand = ["sh", "-c", "{task}"]\nenvironment = ["PATH"]\n')
    with _serve(folder, *_ipc(folder), "--config", str(config), "--server-id", "me") as server:
        assert server.stdout is not None
        assert server.stderr is not None
        facts = json.loads(server.stdout.readline())
        assert facts["endpoint"] == f"ipc://{folder}/commands"
        assert facts["server_id"] == "me"
        cli = CommandLine(facts["endpoint"], folder)
        cli.spawn("sleep 600 & sleep 600")
        server.send_signal(number)
        assert server.wait(timeout=20) == 0
        assert server.stderr.read() == b""
    assert not (folder / "commands").exists()
    assert not (folder / "events").exists()


def test_serve_on_port_0_announces_the_real_one(folder: Path) -> None:
    anywhere = "tcp://127.0.0.1:0"
    with _serve(folder, "--endpoint", anywhere, "--pub-endpoint", anywhere) as server:
        assert server.stdout is not None
        facts = json.loads(server.stdout.readline())
        assert int(facts["endpoint"].rpartition(":")[2]) > 0
        assert facts["endpoint"] != facts["pub_endpoint"]
        assert CommandLine(facts["endpoint"], folder)("health").returncode == 0
        server.terminate()
        assert server.wait(timeout=20) == 0


def test_serve_beyond_loopback_without_insecure_is_refused(folder: Path) -> None:
    with _serve(folder, "--endpoint", "tcp://0.0.0.0:0") as server:
        assert server.wait(timeout=20) != 0
        assert server.stderr is not None
        words = server.stderr.read()
    assert b"insecure" in words
    assert words.count(b"\n") == 1


def test_serve_with_an_unknown_setting_is_a_usage_error(folder: Path) -> None:
    config = folder / "c.toml"
    config.write_text("[zmq_server]\nmax_agentz = 3\n")
    with _serve(folder, "--config", str(config)) as server:
        assert server.wait(timeout=20) == 2
        assert server.stderr is not None
        assert b"max_agentz" in server.stderr.read()
