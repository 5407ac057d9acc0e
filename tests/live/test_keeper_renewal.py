"""A keeper replaces its own code in place: nothing of its agents is lost or notices."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from typing import Any

import pytest

from descartes_fast.server.keeper.protocol import VERSION
from live.keepers import is_alive
from live.raw_keeper import RawKeeper, RawServer, held_program, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

LINE_COUNT = 500_000
LINES = f"""
import os
for n in range({LINE_COUNT}):
    os.write(1, b"%09d\\n" % n)
raise SystemExit(9)
"""

# Starts, knows the state's version, and cannot build its agents from it.
MISSES_A_FIELD = """
import sys
from descartes_fast.server.keeper import __main__, renewal
renewal._PLAIN += ("a_field_of_later",)
sys.exit(__main__.main())
"""

GETS_A_THREAD_LATE = """
import sys, threading
from descartes_fast.server.keeper import __main__
start, refusals = threading.Thread.start, iter(range(3))
def start_late(thread):
    if next(refusals, None) is not None:
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = start_late
sys.exit(__main__.main())
"""


def renew(keeper: RawKeeper, server: RawServer, build: str = "new") -> RawServer:
    """Renew a keeper; return the server's next connection."""
    before = keeper.pid
    server.send("renew", argv=keeper.command(build))
    server.wait_for_end()
    after = keeper.connect()
    words = after.ask("hello", version=VERSION, on_disconnect="keep")
    assert (words["build"], words["pid"]) == (build, before), keeper.log
    return after


def launch(keeper: RawKeeper, server: RawServer, script: str, **settings: Any) -> str:
    fields = keeper.launch_fields(script, **settings)
    reply = server.ask("launch", **fields)
    assert "pid" in reply, reply
    return str(fields["agent"])


def test_renewal_loses_no_byte_no_exit_code_and_no_child(keeper: RawKeeper) -> None:
    server = keeper.greet()
    python = [sys.executable, "-I", "-S", "-c"]
    writers = [launch(keeper, server, "", argv=[*python, LINES]) for _ in range(3)]
    reader = launch(
        keeper,
        server,
        "while [ ! -e go ]; do sleep 0.01; done; cat; exit 6",
        stdin="pipe",
        cwd=str(keeper.directory),
    )
    unread = b"0123456789" * 50_000
    assert server.ask("write", unread, agent=reader, close=False, key="w")["bytes"] == len(unread)
    stubborn = launch(keeper, server, "trap '' TERM; echo up; while :; do sleep 0.02; done")
    wait_until(lambda: keeper.stdout(stubborn) == b"up\n")
    began = time.monotonic()
    server.ask("stop", agent=stubborn, grace_secs=1.5, key="s")
    gone = launch(keeper, server, "exit 3")
    server.ended(gone)
    before = {one["agent"]: one for one in server.ask("list")["agents"]}
    open_fds = server.ask("ping")["open_fds"]
    for build in ("second", "third"):
        assert server.entry(writers[-1])["phase"] == "running"
        server = renew(keeper, server, build)
        after = {one["agent"]: one for one in server.ask("list")["agents"]}
        for name in ("pid", "start_ticks", "started_at_ns", "stdin"):
            assert {a: e[name] for a, e in after.items()} == {a: e[name] for a, e in before.items()}
        assert after[gone] == before[gone]
        assert server.ask("write", unread, agent=reader, close=False, key="w")["bytes"] == 500_000
    assert server.ask("write", b"end", agent=reader, close=True, key="x")["bytes"] == 3
    (keeper.directory / "go").touch()
    assert server.ended(reader)["exit_code"] == 6
    assert keeper.stdout(reader) == unread + b"end"
    assert server.ended(stubborn)["signal"] == signal.SIGKILL
    assert 1.4 < time.monotonic() - began < 4
    expected = b"".join(b"%09d\n" % n for n in range(LINE_COUNT))
    for writer in writers:
        assert server.ended(writer)["exit_code"] == 9
        assert keeper.stdout(writer) == expected
    server.ask("forget", agent=gone, remove=True)
    assert server.ask("ping")["open_fds"] <= open_fds
    assert "Traceback" not in keeper.log


def test_what_is_ending_goes_on_ending_after_a_renewal(keeper: RawKeeper) -> None:
    server = keeper.greet()
    # The leader is gone, its child ignores SIGTERM for the two seconds that it has.
    clearing = launch(keeper, server, "(trap '' TERM; echo up; sleep 60; sleep 60) & sleep 0.1")
    wait_until(lambda: server.entry(clearing)["phase"] == "clearing")
    # Nobody releases what this one's limit holds up; its processes are gone.
    waits = launch(
        keeper, server, "head -c 60000 /dev/zero", output_limit_bytes=100, output_policy="wait"
    )
    began = time.monotonic()
    server = renew(keeper, server)
    assert server.entry(clearing)["phase"] == "clearing"
    assert server.ended(clearing)["exit_code"] == 0
    assert time.monotonic() - began < 4
    wait_until(lambda: server.entry(waits)["phase"] == "ended")
    assert server.entry(waits)["stdout"][1] == 60000


def test_strays_known_before_a_renewal_are_still_known(keeper: RawKeeper) -> None:
    """Without a session, a marker or a parent only memory says whose a process is."""
    server = keeper.greet()
    stray = keeper.directory / "stray"
    stubborn = f"trap '' TERM; echo $$ >{stray}; while :; do sleep 0.05; done"
    agent = launch(keeper, server, f"env -i setsid /bin/sh -c {shlex.quote(stubborn)} & wait")
    wait_until(lambda: stray.exists() and stray.read_text().endswith("\n"))
    pid = int(stray.read_text())
    server.ask("stop", agent=agent, grace_secs=60, key="")
    wait_until(lambda: server.entry(agent)["phase"] == "clearing")
    server = renew(keeper, server)
    assert is_alive(pid), "it has two seconds, its leader being gone"
    server.ended(agent)
    assert not is_alive(pid)


def test_renewal_keeps_limits_and_what_was_trimmed(keeper: RawKeeper) -> None:
    server = keeper.greet()
    server.ask("limit_total", bytes=500_000)
    agent = launch(keeper, server, "exec yes")
    wait_until(lambda: server.entry(agent)["stdout"][0] > 0)
    server = renew(keeper, server)
    start, end = server.entry(agent)["stdout"]
    assert 0 < end - start <= 500_000
    wait_until(lambda: server.entry(agent)["stdout"][1] > end + 1_000_000)
    assert server.ask("ping")["kept_bytes"] <= 500_000


@pytest.mark.parametrize(
    "argv",
    [
        ["/no/such/program"],
        [],
        [sys.executable, "-c", "raise SystemExit(1)"],
        ["{directory}/passes-the-check-and-is-gone"],
        [sys.executable, "-c", MISSES_A_FIELD, "--socket", "{socket}", "--instance", "x"],
    ],
    ids=["missing", "empty", "of-another-state", "gone", "misses-a-field"],
)
def test_renewal_that_cannot_be_is_refused_and_the_keeper_goes_on(
    keeper: RawKeeper, argv: list[str]
) -> None:
    program = keeper.directory / "passes-the-check-and-is-gone"
    program.write_text("#!/bin/sh\nrm $0\n")
    program.chmod(0o755)
    known = {"{directory}": str(keeper.directory), "{socket}": str(keeper.socket_path)}
    for placeholder, value in known.items():
        argv = [word.replace(placeholder, value) for word in argv]
    server = keeper.greet()
    agent = launch(keeper, server, "cat", stdin="pipe")
    before = server.ask("ping")["open_fds"]
    assert server.ask("renew", argv=argv)["code"] == "unsupported"
    assert server.ask("ping")["open_fds"] == before
    server.ask("write", b"still here", agent=agent, close=True, key="")
    assert server.ended(agent)["exit_code"] == 0
    assert keeper.stdout(agent) == b"still here"
    # Nothing of the attempt is inherited, and signals are taken as before.
    report = launch(keeper, server, "ls /proc/self/fd | wc -l; grep SigBlk /proc/self/status")
    server.ended(report)
    assert keeper.stdout(report).split() == [b"4", b"SigBlk:", b"0000000000000000"]
    os.kill(keeper.pid, signal.SIGTERM)
    assert keeper.process is not None
    keeper.process.wait(10)


def test_renewal_with_launches_under_way_is_refused(keeper: RawKeeper) -> None:
    server = keeper.greet()
    with held_program(keeper.directory) as program:
        launches = [keeper.launch_fields("sleep 60") for _ in range(50)]
        launches[0]["argv"] = [str(program), "60"]  # none is started before this one
        ids = [server.send("launch", **launch) for launch in launches]
        assert server.ask("renew", argv=keeper.command("new"))["code"] == "busy"
    assert all("pid" in server.reply(request_id) for request_id in ids)


def test_renewed_keeper_is_a_keeper_like_any_other(keeper: RawKeeper) -> None:
    server = renew(keeper, keeper.greet())
    for signum in (signal.SIGINT, signal.SIGHUP):
        os.kill(keeper.pid, signum)
    agent = launch(keeper, server, "setsid sleep 60 & ulimit -n; exit 8")
    assert server.ended(agent)["exit_code"] == 8
    fresh = launch(keeper, server, "ls /proc/self/fd | wc -l")
    server.ended(fresh)
    assert keeper.stdout(fresh) == b"4\n"
    server.close()
    assert keeper.process is not None
    assert keeper.process.wait(10) == 0
    assert not keeper.socket_path.exists()
    assert (keeper.runtime / "ends.json").exists()


def test_sigterm_while_a_keeper_becomes_another_ends_it(keeper: RawKeeper) -> None:
    server = keeper.greet()
    launch(keeper, server, "sleep 60")
    checking, slow = keeper.directory / "checking", keeper.directory / "slow"
    slow.write_text(
        f'case "$*" in *--check*) touch {checking}; sleep 1;; esac\nexec "$@"\n', encoding="ascii"
    )
    server.send("renew", argv=["/bin/sh", str(slow), *keeper.command("new")])
    wait_until(checking.exists)
    assert keeper.process is not None
    keeper.process.send_signal(signal.SIGTERM)
    assert keeper.process.wait(15) == 0
    assert not keeper.log


def test_renewed_keeper_waits_for_a_thread(keeper: RawKeeper) -> None:
    """Its agents may have all that there may be."""
    server = keeper.greet()
    agent = launch(keeper, server, "read line; exit 8", stdin="pipe")
    program = keeper.directory / "late"
    program.write_text(GETS_A_THREAD_LATE)
    arguments = keeper.command("late")
    at = arguments.index("--socket")
    before = keeper.pid
    server.send("renew", argv=[sys.executable, str(program), *arguments[at:]])
    server.wait_for_end()
    after = keeper.connect()
    assert after.ask("hello", version=VERSION, on_disconnect="keep")["pid"] == before
    after.ask("write", b"word\n", agent=agent, close=False, key="")
    assert after.ended(agent)["exit_code"] == 8
