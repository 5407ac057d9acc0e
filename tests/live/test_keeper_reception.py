"""A keeper can be reached by its server, whoever else comes and whatever is short."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from descartes_fast.server.keeper.protocol import VERSION
from live.raw_keeper import RawKeeper, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

ANOTHER_SERVER = f"""
import sys
from live.raw_keeper import RawServer
server = RawServer(sys.argv[1])
server.ask("hello", version={VERSION}, on_disconnect="keep")
print("hello", flush=True)
sys.stdin.read()
"""
# Four seconds less to wait for.
IMPATIENT = """
import sys
from descartes_fast.server.keeper import __main__, keeper
keeper._NO_SERVER_SECS = 0.2
sys.exit(__main__.main())
"""


class ImpatientKeeper(RawKeeper):
    def command(self, build: str = "") -> list[str]:
        usual = super().command(build)
        return [sys.executable, "-c", IMPATIENT, *usual[usual.index("--socket") :]]


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[RawKeeper]:
    keeper = ImpatientKeeper(tmp_path)
    try:
        assert keeper.start() == b"ready\n"
        yield keeper
    finally:
        keeper.close()


def test_hello_of_another_process_is_refused_while_the_server_lives(keeper: RawKeeper) -> None:
    tests = Path(__file__).parents[1]
    other = subprocess.Popen(
        [sys.executable, "-c", ANOTHER_SERVER, str(keeper.socket_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tests)},
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"hello\n"
        words = keeper.connect().ask("hello", version=VERSION, on_disconnect="keep")
        assert words["code"] == "busy"
    finally:
        other.kill()
        other.communicate()
    assert keeper.connect().is_greeted()


def test_server_finds_room_beside_many_who_connect(keeper: RawKeeper) -> None:
    os.kill(keeper.pid, signal.SIGSTOP)
    others = []
    try:
        for _ in range(60):
            other = socket.socket(socket.AF_UNIX)
            other.settimeout(1)
            others.append(other)
            other.connect(str(keeper.socket_path))
        server = keeper.connect()
        os.kill(keeper.pid, signal.SIGCONT)
        assert server.is_greeted()
    finally:
        os.kill(keeper.pid, signal.SIGCONT)
        for other in others:
            other.close()


def test_socket_that_was_removed_is_there_again(keeper: RawKeeper) -> None:
    server = keeper.greet()
    agent = keeper.launch_fields("sleep 60")
    server.ask("launch", **agent)
    keeper.socket_path.unlink()
    server.close()
    wait_until(keeper.socket_path.exists)
    assert keeper.greet().entry(agent["agent"])["phase"] == "running"


def test_ends_that_cannot_be_left_keep_the_keeper_until_they_can(impatient: RawKeeper) -> None:
    keeper = impatient
    in_the_way = keeper.runtime / "ends.json.new"
    in_the_way.mkdir()
    server = keeper.greet()
    agent = keeper.launch_fields("exit 5")["agent"]
    server.ask("launch", **keeper.launch_fields("exit 5", agent=agent))
    server.close()
    wait_until(lambda: "ends cannot be left" in keeper.log)
    server = keeper.greet()
    assert server.entry(agent)["ended"]["exit_code"] == 5
    server.close()
    assert keeper.process is not None
    assert keeper.process.poll() is None
    in_the_way.rmdir()
    assert keeper.process.wait(10) == 0
    (end,) = json.loads((keeper.runtime / "ends.json").read_text())["ends"]
    assert (end["agent"], end["exit_code"]) == (agent, 5)


def test_terminated_keeper_ends_though_ends_cannot_be_left(keeper: RawKeeper) -> None:
    (keeper.runtime / "ends.json.new").mkdir()
    server = keeper.greet()
    server.ask("launch", **keeper.launch_fields("sleep 60"))
    server.close()
    began = time.monotonic()
    os.kill(keeper.pid, signal.SIGTERM)
    assert keeper.process is not None
    keeper.process.wait(10)
    assert time.monotonic() - began < 5


def test_ends_that_cannot_be_read_are_set_aside(impatient: RawKeeper) -> None:
    keeper = impatient
    (keeper.runtime / "ends.json").write_text('{"ends": [')
    server = keeper.greet()
    server.ask("launch", **keeper.launch_fields("exit 5"))
    server.close()
    assert keeper.process is not None
    assert keeper.process.wait(10) == 0
    assert len(json.loads((keeper.runtime / "ends.json").read_text())["ends"]) == 1
    assert (keeper.runtime / "ends.json.broken").read_text() == '{"ends": ['


@pytest.mark.parametrize("operation", ["launch", "adopt", "write", "abandon"])
def test_request_of_a_nameless_agent_costs_nothing(keeper: RawKeeper, operation: str) -> None:
    server = keeper.greet()
    before = server.ask("ping")["open_fds"]
    read_end, write_end = os.pipe()
    reply = server.ask(operation, b"", [read_end], agent=["no", "name"], fds=["stdin"])
    assert "code" in reply
    os.close(read_end)
    os.close(write_end)
    assert server.ask("ping")["open_fds"] == before
