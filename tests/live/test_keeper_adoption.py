"""A keeper is killed: the next one takes its agents over, and nothing that can be known is lost."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from descartes_fast.server.keeper import passing
from live.keepers import is_alive
from live.raw_keeper import RawKeeper, RawServer, wait_until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs pidfds"),
    pytest.mark.leaves_orphans,
]

NAMES = ("stdin", "stdout", "stderr", "exit", "backlog")


class Orphan:
    """An agent whose keeper was killed: what its server knows of it, and the duplicates it has."""

    def __init__(self, fields: dict[str, Any], reply: dict[str, Any], fds: list[int]) -> None:
        self.agent = str(fields["agent"])
        self.pid = int(reply["pid"])
        self.descriptors = dict(zip(reply["fds"], fds, strict=True))
        copied = ("agent", "stdout_path", "stderr_path", "output_limit_bytes", "output_policy")
        self.fields: dict[str, Any] = {
            **{name: fields[name] for name in copied},
            "pid": reply["pid"],
            "start_ticks": reply["start_ticks"],
            "started_at_ns": reply["started_at_ns"],
        }


def launch(keeper: RawKeeper, server: RawServer, script: str, **settings: Any) -> Orphan:
    server.keeps_descriptors = True
    body = settings.pop("body", b"")
    fields = keeper.launch_fields(script, **settings)
    reply = server.ask("launch", body, **fields)
    return Orphan(fields, reply, server.take_descriptors(reply))


def restart(keeper: RawKeeper) -> RawServer:
    keeper.kill()
    assert keeper.start() == b"ready\n"
    return keeper.greet()


def adopt(
    server: RawServer, orphan: Orphan, names: Sequence[str] = NAMES, **more: Any
) -> dict[str, Any]:
    """Hand an agent to a keeper, with the descriptors of ``names``; drop them all here."""
    given = [name for name in names if name in orphan.descriptors]
    descriptors = [orphan.descriptors[name] for name in given]
    reply = server.ask("adopt", b"", descriptors, **orphan.fields, **more, fds=given)
    passing.close_all(orphan.descriptors.values())
    return reply


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and not is_alive(pid)


def test_adopted_agent_goes_on_with_all_its_pipes(keeper: RawKeeper) -> None:
    server = keeper.greet()
    orphan = launch(
        keeper, server, "echo one; read line; echo got $line; read x || exit 7", stdin="pipe"
    )
    wait_until(lambda: keeper.stdout(orphan.agent) == b"one\n")
    server = restart(keeper)
    reply = adopt(server, orphan)
    assert (reply["stdout"], reply["stderr"], reply["phase"]) == ([0, 4], [0, 0], "running")
    entry = server.entry(orphan.agent)
    assert (entry["pid"], entry["stdin"]) == (orphan.pid, "open")
    assert entry["started_at_ns"] == orphan.fields["started_at_ns"]
    server.ask("write", b"two\n", agent=orphan.agent, close=False, key="")
    wait_until(lambda: keeper.stdout(orphan.agent) == b"one\ngot two\n")
    server.ask("write", b"", agent=orphan.agent, close=True, key="")
    end = server.ended(orphan.agent)
    assert (end["exit_code"], end["signal"], end["unknown"]) == (7, None, False)
    assert end["user_secs"] is end["max_rss_bytes"] is None
    assert server.entry(orphan.agent)["ended"] == end


READS_TWICE = "head -c 100000; touch half; while [ ! -e go ]; do sleep 0.01; done; cat"
TASK = bytes(range(256)) * 2500


@pytest.mark.parametrize("by", ["task", "write"])
def test_input_that_was_taken_is_read_whole_and_once_after_the_keepers_death(
    keeper: RawKeeper, by: str
) -> None:
    """A pipe takes 64 KiB; the rest must not go with the keeper, nor any of it come twice."""
    server = keeper.greet()
    folder = keeper.directory
    task = {"stdin": "close-after-task"} if by == "task" else {"stdin": "pipe"}
    orphan = launch(
        keeper, server, READS_TWICE, body=TASK if by == "task" else b"", cwd=str(folder), **task
    )
    if by == "write":
        assert "backlog" not in orphan.descriptors
        reply = server.ask("write", TASK, agent=orphan.agent, close=False, key="k")
        assert (reply["bytes"], reply["fds"]) == (len(TASK), ["backlog"])
        (orphan.descriptors["backlog"],) = server.take_descriptors(reply)
        assert "fds" not in server.ask("write", TASK, agent=orphan.agent, close=False, key="k")
        assert "fds" not in server.ask("write", b"end", agent=orphan.agent, close=True, key="l")
    assert server.entry(orphan.agent)["stdin"] == "closing"
    wait_until((folder / "half").exists)
    server = restart(keeper)
    adopt(server, orphan, closing=True)
    assert server.entry(orphan.agent)["stdin"] == "closing"
    (folder / "go").touch()
    assert server.ended(orphan.agent)["exit_code"] == 0
    assert keeper.stdout(orphan.agent) == TASK + (b"end" if by == "write" else b"")
    assert {"event": "stdin", "agent": orphan.agent} in server.events


def test_stdin_that_closes_is_told_after_the_reply(keeper: RawKeeper) -> None:
    """A server's duplicate keeps an agent waiting for the end of its input."""
    server = keeper.greet()
    orphan = launch(keeper, server, "cat >/dev/null; exit 4", stdin="pipe")
    reply = server.ask("write", b"all of it", agent=orphan.agent, close=True, key="")
    told = {"event": "stdin", "agent": orphan.agent}
    server.read_until(lambda: told in server.events)
    assert server.frames.index(reply) < server.frames.index(told)
    assert server.entry(orphan.agent)["stdin"] == "closed"
    assert is_alive(orphan.pid)
    passing.close_all(orphan.descriptors.values())
    assert server.ended(orphan.agent)["exit_code"] == 4
    assert server.events.count(told) == 1
    fits = launch(keeper, server, "cat", body=b"task", stdin="close-after-task")
    assert sorted(fits.descriptors) == ["exit", "stderr", "stdout"]
    passing.close_all(fits.descriptors.values())
    server.ended(fits.agent)
    assert server.events.count({"event": "stdin", "agent": fits.agent}) == 0


def test_no_line_is_lost_or_repeated_when_keepers_are_killed(keeper: RawKeeper) -> None:
    program = "import os\nfor n in range(300000): os.write(1, b'%09d\\n' % n)\nos._exit(9)"
    server = keeper.greet()
    argv = [sys.executable, "-I", "-S", "-c", program]
    orphan = launch(keeper, server, "", argv=argv)
    server.keeps_descriptors = True
    for _ in range(3):
        assert is_alive(orphan.pid), "the agent was too fast for this test"
        server = restart(keeper)
        server.keeps_descriptors = True
        given = dict(orphan.descriptors)
        server.ask("adopt", b"", list(given.values()), **orphan.fields, fds=list(given))
    passing.close_all(orphan.descriptors.values())
    assert server.ended(orphan.agent)["exit_code"] == 9
    assert keeper.stdout(orphan.agent) == b"".join(b"%09d\n" % n for n in range(300000))


def test_pipes_are_drained_of_an_agent_that_ended_without_a_keeper(keeper: RawKeeper) -> None:
    server = keeper.greet()
    orphan = launch(
        keeper,
        server,
        "while [ ! -e go ]; do sleep 0.01; done; echo last words; exit 5",
        cwd=str(keeper.directory),
    )
    keeper.kill()
    (keeper.directory / "go").touch()
    wait_until(lambda: is_zombie(orphan.pid))
    os.waitpid(orphan.pid, 0)
    assert not Path(f"/proc/{orphan.pid}").exists()
    assert keeper.start() == b"ready\n"
    server = keeper.greet()
    adopt(server, orphan)
    end = server.ended(orphan.agent)
    # The pidfd that the server held has kept the exit status (Linux 6.15).
    assert end["exit_code"] == 5 or end["unknown"]
    assert keeper.stdout(orphan.agent) == b"last words\n"
    assert end["stdout"] == [0, 11]


@pytest.mark.parametrize(
    ("script", "code", "signum"),
    [("exit 0", 0, None), ("exit 255", 255, None), ("kill -SEGV $$", None, signal.SIGSEGV)],
)
@pytest.mark.parametrize("reaped", [False, True])
def test_exit_of_an_adopted_agent_is_seen_reaped_or_not(
    keeper: RawKeeper, script: str, code: int | None, signum: int | None, reaped: bool
) -> None:
    server = keeper.greet()
    orphan = launch(keeper, server, f"read x; {script}", stdin="pipe")
    server = restart(keeper)
    adopt(server, orphan)
    os.kill(keeper.pid, signal.SIGSTOP)
    server.send("write", b"go\n", agent=orphan.agent, close=False, key="")
    os.kill(keeper.pid, signal.SIGCONT)
    if reaped:
        os.waitpid(orphan.pid, 0)
    end = server.ended(orphan.agent)
    assert (end["exit_code"], end["signal"], end["unknown"]) == (code, signum, False)


def test_agent_adopted_without_descriptors_is_commanded_by_its_id(keeper: RawKeeper) -> None:
    server = keeper.greet()
    # Its pipes are broken from then on: a shell that reports a child's end would get SIGPIPE.
    loop = "exec 2>/dev/null; while :; do sleep 0.02; done"
    polite = launch(keeper, server, f"trap 'exit 4' TERM; echo up >&2; {loop}")
    quiet = launch(keeper, server, "trap '' TERM; while :; do sleep 0.02; done", stdin="pipe")
    said = Path(polite.fields["stderr_path"])
    wait_until(lambda: said.exists() and said.read_bytes() == b"up\n")
    server = restart(keeper)
    for orphan in (polite, quiet):
        assert adopt(server, orphan, [])["phase"] == "running"
    assert server.entry(polite.agent)["stderr"] == [0, 3]
    assert server.entry(quiet.agent)["stdin"] == "null"
    fields = {"agent": quiet.agent, "tree": True, "key": ""}
    assert "code" not in server.ask("signal", signal=int(signal.SIGSTOP), **fields)
    assert "code" not in server.ask("stop", agent=polite.agent, grace_secs=5, key="")
    assert "code" not in server.ask("stop", agent=quiet.agent, grace_secs=0.3, key="")
    assert server.ended(polite.agent)["exit_code"] == 4
    assert server.ended(quiet.agent)["signal"] == signal.SIGKILL


def test_what_an_adopted_agent_left_behind_ends_with_it(keeper: RawKeeper) -> None:
    stray = keeper.directory / "stray"
    server = keeper.greet()
    orphan = launch(
        keeper,
        server,
        f"sleep 60 & setsid sh -c 'echo $$ >{stray}; exec sleep 60' & sleep 60 >&- & "
        "echo $!; read x; exit 2",
        stdin="pipe",
    )
    wait_until(lambda: stray.exists() and stray.read_text().endswith("\n"))
    wait_until(lambda: keeper.stdout(orphan.agent).endswith(b"\n"))
    pids = [int(stray.read_text()), int(keeper.stdout(orphan.agent))]
    server = restart(keeper)
    adopt(server, orphan)
    server.ask("write", b"go\n", agent=orphan.agent, close=False, key="")
    end = server.ended(orphan.agent)
    assert end["exit_code"] == 2
    assert not any(is_alive(pid) for pid in pids)
    time.sleep(0.05)
    assert len([e for e in server.events if e["event"] == "ended"]) == 1


@pytest.mark.parametrize("how", ["gone", "another"])
def test_agent_that_is_gone_ends_as_unknown_and_no_stranger_is_touched(
    keeper: RawKeeper, how: str
) -> None:
    server = keeper.greet()
    orphan = launch(keeper, server, "echo bye; exit 1")
    server.ended(orphan.agent)
    stranger = launch(keeper, server, "sleep 60")
    server = restart(keeper)
    if how == "another":
        # As if the agent's id had been given to another process since.
        orphan.fields["pid"] = stranger.pid
        orphan.fields["start_ticks"] = stranger.fields["start_ticks"] - 1
    reply = adopt(server, orphan, [])
    assert "code" not in reply
    end = server.ended(orphan.agent)
    assert (end["unknown"], end["exit_code"], end["signal"]) == (True, None, None)
    assert end["stdout"] == [0, 4]
    assert is_alive(stranger.pid)
    assert server.ask("kill", agent=orphan.agent, key="")["code"] == "state"
    passing.close_all(stranger.descriptors.values())


def test_adopted_agent_is_refused_as_a_server(keeper: RawKeeper) -> None:
    server = keeper.greet()
    program = f"""
import os, socket
while not os.path.exists({str(keeper.directory / "go")!r}): pass
s = socket.socket(socket.AF_UNIX)
s.connect({str(keeper.socket_path)!r})
print("heard", s.recv(10), flush=True)
"""
    orphan = launch(keeper, server, "", argv=[sys.executable, "-I", "-S", "-c", program])
    server = restart(keeper)
    adopt(server, orphan)
    (keeper.directory / "go").touch()
    wait_until(lambda: keeper.stdout(orphan.agent) == b"heard b''\n")


def test_adopted_agent_survives_a_renewal(keeper: RawKeeper) -> None:
    server = keeper.greet()
    orphan = launch(keeper, server, "read x; echo $x; exit 3", stdin="pipe")
    server = restart(keeper)
    adopt(server, orphan)
    server.send("renew", argv=keeper.command("new"))
    server.wait_for_end()
    server = keeper.greet()
    assert server.entry(orphan.agent)["phase"] == "running"
    server.ask("write", b"after\n", agent=orphan.agent, close=False, key="")
    assert server.ended(orphan.agent)["exit_code"] == 3
    assert keeper.stdout(orphan.agent) == b"after\n"


def test_adoption_of_what_is_known_is_refused(keeper: RawKeeper) -> None:
    server = keeper.greet()
    orphan = launch(keeper, server, "sleep 60")
    before = server.ask("ping")["open_fds"]
    assert adopt(server, orphan)["code"] == "state"
    assert server.ask("ping")["open_fds"] == before
