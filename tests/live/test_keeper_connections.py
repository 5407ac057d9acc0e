"""Who the keeper serves: the last server that said hello, and none of its own agents."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from descartes_fast.server.keeper import passing
from descartes_fast.server.keeper.protocol import VERSION, frame
from live.raw_keeper import INSTANCE, RawKeeper, held_program, wait_until, wait_until_prepared

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_hello_is_answered_whatever_the_version(keeper: RawKeeper) -> None:
    old = keeper.connect()
    words = old.ask("hello", version=99, on_disconnect="keep")
    assert (words["version"], words["pid"], words["instance"]) == (VERSION, keeper.pid, INSTANCE)
    assert old.ask("list")["code"] == "unsupported"
    assert old.ask("ping")["agents"] == 0
    assert keeper.connect().ask("hello", version="2", on_disconnect="keep")["code"] == "invalid"
    assert keeper.connect().ask("list")["code"] == "invalid"
    assert old.ask("ping")["agents"] == 0


def test_hello_takes_the_place_of_the_server_before(keeper: RawKeeper) -> None:
    first = keeper.greet()
    silent = keeper.connect()
    agent = first.ask("launch", **keeper.launch_fields("sleep 60"))
    assert first.ask("ping")["agents"] == 1
    second = keeper.greet()
    first.wait_for_end()
    (entry,) = second.ask("list")["agents"]
    assert (entry["pid"], entry["phase"], entry["ended"]) == (agent["pid"], "running", None)
    assert not silent.has_something_to_read()


def test_starts_that_were_queued_for_the_server_before_never_happen(keeper: RawKeeper) -> None:
    first = keeper.greet()
    launches = [keeper.launch_fields("sleep 60") for _ in range(200)]
    with held_program(keeper.directory) as program:
        launches[0]["argv"] = [str(program), "60"]  # none is started before this one
        for launch in launches:
            first.send("launch", **launch)
        wait_until_prepared(launches[1])
        second = keeper.connect()
        greeting = second.send("hello", version=VERSION, on_disconnect="keep")
    assert "pid" in second.reply(greeting)
    known = {entry["agent"] for entry in second.ask("list")["agents"]}
    assert 0 < len(known) < len(launches)
    for _ in range(3):
        # A queued start would happen in one of the turns of these.
        assert {entry["agent"] for entry in second.ask("list")["agents"]} == known
    missing = next(launch for launch in launches if launch["agent"] not in known)
    assert not Path(missing["stdout_path"]).exists()
    assert "pid" in second.ask("launch", **missing)


def test_agents_outlive_their_server_with_output_and_exit_code(keeper: RawKeeper) -> None:
    first = keeper.greet()
    launch = keeper.launch_fields("read line; echo got $line; exit 7", stdin="pipe")
    first.ask("launch", **launch)
    short = keeper.launch_fields("exit 3")
    first.ask("launch", **short)
    first.close()
    second = keeper.greet()
    assert second.entry(launch["agent"])["stdin"] == "open"
    wait_until(lambda: second.entry(short["agent"])["phase"] == "ended")
    assert second.entry(short["agent"])["ended"]["exit_code"] == 3
    assert second.ask("write", b"word\n", agent=launch["agent"], close=False, key="")["bytes"] == 5
    assert second.ended(launch["agent"])["exit_code"] == 7
    assert keeper.stdout(launch["agent"]) == b"got word\n"
    assert "code" not in second.ask("forget", agent=short["agent"], remove=True)
    assert [one["agent"] for one in second.ask("list")["agents"]] == [launch["agent"]]


def test_keeper_without_agents_and_server_leaves_the_ends_nobody_acknowledged(
    keeper: RawKeeper,
) -> None:
    server = keeper.greet()
    launches = [keeper.launch_fields(f"exit {n}") for n in range(3)]
    for launch in launches:
        server.ask("launch", **launch)
    for launch in launches:
        server.ended(launch["agent"])
    server.ask("forget", agent=launches[0]["agent"], remove=False)
    (keeper.runtime / "ends.json").write_text(json.dumps({"ends": [{"agent": "earlier"}, {}, 7]}))
    server.close()
    assert keeper.process is not None
    assert keeper.process.wait(10) == 0
    left = json.loads((keeper.runtime / "ends.json").read_text())
    ends = {end["agent"]: end.get("exit_code") for end in left["ends"]}
    assert ends == {"earlier": None, launches[1]["agent"]: 1, launches[2]["agent"]: 2}
    assert not keeper.socket_path.exists()
    assert keeper.start() == b"ready\n"


def test_keeper_waits_for_its_agents_before_it_leaves(keeper: RawKeeper) -> None:
    server = keeper.greet()
    launch = keeper.launch_fields("read line", stdin="pipe")
    server.ask("launch", **launch)
    server.close()
    time.sleep(5.5)
    assert keeper.process is not None
    assert keeper.process.poll() is None
    assert keeper.greet().entry(launch["agent"])["phase"] == "running"


def test_keeper_that_is_terminated_ends_its_agents_and_leaves_their_ends(
    keeper: RawKeeper,
) -> None:
    server = keeper.greet()
    launch = keeper.launch_fields("trap 'exit 4' TERM; echo up; while :; do sleep 0.02; done")
    server.ask("launch", **launch)
    wait_until(lambda: keeper.stdout(launch["agent"]) == b"up\n")
    server.close()
    os.kill(keeper.pid, signal.SIGTERM)
    assert keeper.process is not None
    assert keeper.process.wait(10) == 0
    (end,) = json.loads((keeper.runtime / "ends.json").read_text())["ends"]
    assert (end["agent"], end["exit_code"]) == (launch["agent"], 4)


def test_second_keeper_of_a_place_refuses_to_start(keeper: RawKeeper) -> None:
    second = subprocess.run(keeper.command(), capture_output=True, timeout=10, check=False)
    assert (second.returncode, second.stdout) == (1, b"")
    assert b"another keeper" in second.stderr
    assert keeper.greet().ask("ping")["pid"] == keeper.pid


def test_socket_that_a_killed_keeper_left_is_replaced(keeper: RawKeeper) -> None:
    keeper.greet()
    keeper.kill()
    assert keeper.socket_path.exists()
    assert keeper.start() == b"ready\n"
    assert keeper.greet().ask("ping")["pid"] == keeper.pid


CONNECT = """
import os, socket, sys, time
{escape}
s = socket.socket(socket.AF_UNIX)
s.connect({path!r})
s.settimeout(5)
try:
    s.sendall({hello!r})
    print("heard", s.recv(100), flush=True)
except ConnectionError:
    print("heard b''", flush=True)
time.sleep(60)
"""

ESCAPES = {
    "child": "",
    "double-forked": """
if os.fork(): time.sleep(60)
os.setsid()
if os.fork(): os._exit(0)
""",
    "without-environment": """
if len(sys.argv) == 1:
    if os.fork(): time.sleep(60)
    os.setsid()
    if os.fork(): os._exit(0)
    os.execve(sys.executable, [sys.executable, "-I", "-S", *sys.orig_argv[3:], "x"], {})
""",
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_agent_is_refused_however_it_hides(keeper: RawKeeper, escape: str) -> None:
    server = keeper.greet()
    program = CONNECT.format(
        escape=ESCAPES[escape],
        path=str(keeper.socket_path),
        hello=frame({"op": "hello", "id": 1, "version": VERSION, "on_disconnect": "keep"}),
    )
    launch = keeper.launch_fields("", argv=[sys.executable, "-I", "-S", "-c", program])
    server.ask("launch", **launch)
    wait_until(lambda: b"\n" in keeper.stdout(launch["agent"]))
    assert keeper.stdout(launch["agent"]) == b"heard b''\n"
    assert server.ask("ping")["agents"] == 1
    assert "refused" in keeper.log


WAITING_HELLO = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect({path!r})
print("there", flush=True)
sys.stdin.readline()
s.settimeout(5)
s.sendall({hello!r})
print(s.recv(1000), flush=True)
"""


def test_hello_that_nobody_can_judge_is_to_come_again(keeper: RawKeeper) -> None:
    server = keeper.greet()
    hello = frame({"op": "hello", "id": 1, "version": VERSION, "on_disconnect": "keep"})
    program = WAITING_HELLO.format(path=str(keeper.socket_path), hello=hello)
    limits = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"there\n"
        server.ask("ping")  # it has been accepted by now
        resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        other.stdin.write(b"\n")
        other.stdin.close()
        answer = other.stdout.read()
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, limits)
    assert b'"code":"busy"' in answer
    assert b"nobody can see" in answer
    assert server.ask("ping")["pid"] == keeper.pid


def test_key_does_a_thing_once(keeper: RawKeeper) -> None:
    server = keeper.greet()
    launch = keeper.launch_fields("trap 'echo usr' USR1; cat; exit 5", stdin="pipe")
    agent = launch["agent"]
    server.ask("launch", **launch)
    for _ in range(3):
        assert server.ask("write", b"once ", agent=agent, close=False, key="k1")["bytes"] == 5
    keeper.greet()
    server = keeper.greet()
    assert server.ask("write", b"once ", agent=agent, close=False, key="k1")["bytes"] == 5
    assert server.ask("write", b"twice", agent=agent, close=True, key="k2")["bytes"] == 5
    assert server.ended(agent)["exit_code"] == 5
    # Done is done, whatever has become of the agent; what was not done finds out anew.
    assert server.ask("write", b"twice", agent=agent, close=True, key="k2")["bytes"] == 5
    assert server.ask("write", b"thrice", agent=agent, close=True, key="k3")["code"] == "state"
    assert server.ask("stop", agent=agent, grace_secs=1, key="k2")["code"] == "state"
    assert keeper.stdout(agent) == b"once twice"


def test_refused_write_is_tried_again_under_its_key(keeper: RawKeeper) -> None:
    server = keeper.greet()
    launch = keeper.launch_fields("while [ ! -e go ]; do sleep 0.01; done; cat", stdin="pipe")
    launch["cwd"] = str(keeper.directory)
    agent = launch["agent"]
    server.ask("launch", **launch)
    big = b"x" * 1_000_000
    assert server.ask("write", big, agent=agent, close=False, key="a")["bytes"] == len(big)
    assert server.ask("write", big, agent=agent, close=False, key="b")["code"] == "would_block"
    (keeper.directory / "go").touch()
    wait_until(lambda: len(keeper.stdout(agent)) == len(big))
    assert server.ask("write", big, agent=agent, close=True, key="b")["bytes"] == len(big)
    assert server.ended(agent)["stdout"] == [0, 2 * len(big)]


def test_stop_and_signal_and_kill_are_done_once_for_a_key(keeper: RawKeeper) -> None:
    server = keeper.greet()
    launch = keeper.launch_fields("trap 'echo usr' USR1; echo up; while :; do sleep 0.01; done")
    agent = launch["agent"]
    server.ask("launch", **launch)
    wait_until(lambda: keeper.stdout(agent) == b"up\n")
    for _ in range(3):
        fields = {"agent": agent, "signal": int(signal.SIGUSR1), "tree": False, "key": "s"}
        assert "code" not in server.ask("signal", **fields)
    wait_until(lambda: keeper.stdout(agent) == b"up\nusr\n")
    assert "code" not in server.ask("kill", agent=agent, key="s")
    server.ended(agent)
    assert "code" not in server.ask("kill", agent=agent, key="s")
    assert server.ask("kill", agent=agent, key="t")["code"] == "state"
    assert keeper.stdout(agent) == b"up\nusr\n"


def test_descriptors_come_with_the_replies_that_name_them(keeper: RawKeeper) -> None:
    server = keeper.greet()
    server.keeps_descriptors = True
    ids = [
        server.send("launch", **keeper.launch_fields(f"echo agent {n}; sleep 60", stdin="pipe"))
        for n in range(50)
    ]
    for request_id in ids:
        reply = server.reply(request_id)
        assert reply["fds"] == ["stdin", "stdout", "stderr", "exit"]
        descriptors = server.take_descriptors(reply)
        assert len(descriptors) == 4
        with open(f"/proc/self/fdinfo/{descriptors[3]}") as info:
            assert f"Pid:\t{reply['pid']}\n" in info.read()
        passing.close_all(descriptors)
    agents = [entry["agent"] for entry in server.ask("list")["agents"]]
    reply = server.ask("duplicates", agents=[*agents, "unknown"])
    descriptors = server.take_descriptors(reply)
    assert len(descriptors) == len(reply["fds"]) == 200
    assert dict(reply["agents"])["unknown"] == []
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in descriptors]
    assert len({link for link in links if link.startswith("pipe:")}) == 150
    passing.close_all(descriptors)


def test_duplicates_are_as_many_as_one_message_takes(keeper: RawKeeper) -> None:
    server = keeper.greet()
    for _ in range(70):
        server.send("launch", **keeper.launch_fields("sleep 60", stdin="pipe"))
    wait_until(lambda: server.ask("ping")["agents"] == 70)
    agents = [entry["agent"] for entry in server.ask("list")["agents"]]
    server.keeps_descriptors = True
    reply = server.ask("duplicates", agents=agents)
    assert [agent for agent, _ in reply["agents"]] == agents[:63]
    descriptors = server.take_descriptors(reply)
    assert len(descriptors) == 252
    passing.close_all(descriptors)


def test_descriptors_that_were_lost_are_said_to_be(keeper: RawKeeper) -> None:
    server = keeper.greet()
    # Names of two, one comes: as when the receiver had no room for the other.
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        reply = server.ask("adopt", b"", [null], agent="a", fds=["stdout", "stderr"])
    finally:
        os.close(null)
    assert reply["code"] == "busy"
    before = server.ask("ping")["open_fds"]
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        assert "code" not in server.ask("ping", b"", [null], fds=["stray"])
    finally:
        os.close(null)
    assert server.ask("ping")["open_fds"] == before


def test_silent_connections_are_bounded(keeper: RawKeeper) -> None:
    server = keeper.greet()
    guests = []
    for _ in range(40):
        guest = socket.socket(socket.AF_UNIX)
        guest.connect(str(keeper.socket_path))
        guests.append(guest)
        server.ask("ping")
    assert int(server.ask("ping")["open_fds"]) < 40
    for guest in guests:
        guest.close()
