"""Launches take their time: what the keeper does meanwhile, and what waits for them."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from live.raw_keeper import RawKeeper, RawServer, held_program, wait_until, wait_until_prepared

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses leases and prctl")

# So many places are looked at before the program is found; the longest PATH that can be passed.
SLOW_PATH = "a:" * 60_000 + "/usr/bin:/bin"
# It is found first, and cannot be executed; that is said when all the others were looked at.
VERY_SLOW_PATH = "/etc:" + "a:" * 1_000_000

TOLD_OF_ITS_PARENT = """
import ctypes, signal, time
PR_SET_PDEATHSIG = 1
assert ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) == 0
print("set", flush=True)
time.sleep(60)
"""


def slow(keeper: RawKeeper, script: str, **settings: Any) -> dict[str, Any]:
    """Return the fields of a launch that takes some 100 ms."""
    fields = keeper.launch_fields(script, **settings)
    fields["environment"] = {**fields["environment"], "PATH": SLOW_PATH}
    return fields


def test_others_are_served_while_a_program_is_being_started(keeper: RawKeeper) -> None:
    server = keeper.greet()
    launch = keeper.launch_fields("", argv=["passwd"], environment={"PATH": VERY_SLOW_PATH})
    launching = server.send("launch", **launch)
    wait_until_prepared(launch)
    answered = [server.ask("ping")["re"] for _ in range(5)]
    refused = server.reply(launching)
    assert (refused["code"], "it is not executable" in refused["words"]) == ("spawn_failed", True)
    assert [frame["re"] for frame in server.frames[-6:]] == [*answered, launching]
    assert not Path(launch["stdout_path"]).parent.exists()


def test_what_concerns_an_agent_waits_for_its_launch(keeper: RawKeeper) -> None:
    server = keeper.greet()
    launches = [slow(keeper, "sleep 60") for _ in range(3)]
    asked = [server.send("launch", **launch) for launch in launches]
    killing = server.send("kill", agent=launches[1]["agent"], key="")
    again = server.send("launch", **launches[2])
    assert all("pid" in server.reply(one) for one in asked)
    assert "code" not in server.reply(killing)
    assert server.reply(again)["code"] == "spawn_failed"
    assert server.ended(launches[1]["agent"])["signal"] == signal.SIGKILL
    assert server.ask("ping")["agents"] == 2


def test_next_server_sees_what_was_under_way(keeper: RawKeeper) -> None:
    first = keeper.greet()
    launches = [slow(keeper, "sleep 60") for _ in range(4)]
    for launch in launches:
        first.send("launch", **launch)
    wait_until_prepared(launches[-1])
    second = keeper.greet()
    entries = {entry["agent"]: entry for entry in second.ask("list")["agents"]}
    assert entries.keys() == {launch["agent"] for launch in launches}
    assert all(entry["pid"] > 1 and entry["phase"] == "running" for entry in entries.values())


def test_end_waits_for_what_is_under_way_and_ends_it(keeper: RawKeeper) -> None:
    server = keeper.greet()
    launches = [slow(keeper, "sleep 60") for _ in range(4)]
    asked = [server.send("launch", **launch) for launch in launches]
    wait_until_prepared(launches[-1])
    ending = server.send("end", grace_secs=5)
    assert all("pid" in server.reply(one) for one in asked)
    assert [server.ended(launch["agent"])["signal"] for launch in launches] == [signal.SIGTERM] * 4
    server.reply(ending)


def test_keeper_does_not_become_another_while_a_launch_is_under_way(keeper: RawKeeper) -> None:
    server = keeper.greet()
    with held_program(keeper.directory, "/bin/sh") as program:
        launch = keeper.launch_fields("", argv=[str(program), "-c", "exit 5"])
        launching = server.send("launch", **launch)
        wait_until_prepared(launch)
        refused = server.ask("renew", argv=keeper.command("new"))
        assert (refused["code"], refused["words"]) == ("busy", "there are launches under way")
    assert "pid" in server.reply(launching)
    assert server.ended(launch["agent"])["exit_code"] == 5


def test_keeper_whose_server_is_lost_waits_for_what_is_under_way(keeper: RawKeeper) -> None:
    first = keeper.greet()
    launch = slow(keeper, "exit 6")
    first.send("launch", **launch)
    wait_until_prepared(launch)
    first.close()
    second = keeper.greet()
    wait_until(lambda: second.entry(launch["agent"])["phase"] == "ended")
    assert second.entry(launch["agent"])["ended"]["exit_code"] == 6


def test_no_exit_code_is_lost_to_those_who_reap_what_is_left_behind(keeper: RawKeeper) -> None:
    server = keeper.greet()
    # Each leaves a child that ends after it, and becomes the keeper's to reap.
    launches = [keeper.launch_fields("(sleep 0.01 &) ; exit 7") for _ in range(300)]
    for launch in launches:
        server.send("launch", **launch)
    ends = [server.ended(launch["agent"]) for launch in launches]
    assert {(end["exit_code"], end["unknown"]) for end in ends} == {(7, False)}


def test_no_exit_code_is_lost_beside_launches_that_fail(keeper: RawKeeper) -> None:
    server = keeper.greet()
    good, bad = [], []
    for number in range(200):
        fails = number % 5 == 0
        launch = keeper.launch_fields("", argv=["no-such-program"] if fails else ["true"])
        (bad if fails else good).append((launch["agent"], server.send("launch", **launch)))
    assert {server.reply(asked)["code"] for _, asked in bad} == {"spawn_failed"}
    ends = [server.ended(agent) for agent, _ in good]
    assert {(end["exit_code"], end["unknown"]) for end in ends} == {(0, False)}
    assert server.ask("ping")["agents"] == 0


def test_launches_are_answered_while_the_next_hangs(keeper: RawKeeper) -> None:
    server = keeper.greet()
    with held_program(keeper.directory) as program:
        asked = [server.send("launch", **keeper.launch_fields("sleep 60")) for _ in range(8)]
        hanging = server.send("launch", **keeper.launch_fields("", argv=[str(program), "60"]))
        assert all("pid" in server.reply(one) for one in asked)
        server.ask("ping")
        assert hanging not in [frame.get("re") for frame in server.frames]
    assert "pid" in server.reply(hanging)


def test_others_are_begun_behind_what_waits_for_a_launch(keeper: RawKeeper) -> None:
    server = keeper.greet()
    other = keeper.launch_fields("sleep 60")
    with held_program(keeper.directory) as program:
        long = keeper.launch_fields("", argv=[str(program), "60"])
        launching = server.send("launch", **long)
        wait_until_prepared(long)
        server.send("kill", agent=long["agent"], key="")
        begun = server.send("launch", **other)
        wait_until_prepared(other)
        server.ask("ping")
        assert launching not in [frame.get("re") for frame in server.frames]
    assert "pid" in server.reply(launching)
    assert "pid" in server.reply(begun)
    assert server.ended(long["agent"])["signal"] == signal.SIGKILL


def test_what_hangs_in_its_exec_holds_no_server_up_and_is_killed(keeper: RawKeeper) -> None:
    first = keeper.greet()
    agent = first.ask("launch", **keeper.launch_fields("sleep 60"))
    with held_program(keeper.directory) as program:
        hanging = keeper.launch_fields("", argv=[str(program), "60"])
        behind = keeper.launch_fields("sleep 60")
        first.send("launch", **hanging)
        first.send("launch", **behind)
        wait_until_prepared(behind)
        second = keeper.greet()  # after five seconds
        entries = {entry["agent"]: entry for entry in second.ask("list")["agents"]}
        assert entries.pop(hanging["agent"])["pid"] > 1
        assert [entry["pid"] for entry in entries.values()] == [agent["pid"]]
        assert not Path(behind["stdout_path"]).parent.exists()
        wait_until(lambda: second.ask("ping")["agents"] == 1)
        assert second.entry(hanging["agent"])["ended"]["signal"] == signal.SIGKILL


def test_abandoned_launch_that_hangs_holds_up_nobody(keeper: RawKeeper) -> None:
    server = keeper.greet()
    with held_program(keeper.directory) as program:
        hanging = keeper.launch_fields("", argv=[str(program), "60"])
        server.send("launch", **hanging)
        wait_until_prepared(hanging)
        abandoning = server.send("abandon", agent=hanging["agent"])
        assert "pid" in server.ask("launch", **keeper.launch_fields("sleep 60"))
        server.reply(abandoning)
        wait_until(lambda: server.ask("ping")["known"] == 1)


@pytest.mark.parametrize("argv", [["no-such-program"], ["sh", "-c", "sleep 60"]])
def test_nothing_is_begun_after_the_end_though_a_launch_hangs(
    keeper: RawKeeper, argv: list[str]
) -> None:
    server = keeper.greet()
    running = keeper.launch_fields("sleep 60")
    server.ask("launch", **running)
    with held_program(keeper.directory) as program:
        server.send("launch", **keeper.launch_fields("", argv=[str(program), "60"]))
        behind = [keeper.launch_fields("", argv=argv) for _ in range(20)]
        asked = [server.send("launch", **launch) for launch in behind]
        wait_until_prepared(behind[-1])
        ending = server.send("end", grace_secs=5)
        assert {server.reply(one)["code"] for one in asked} == {"spawn_failed"}
        assert server.ended(running["agent"])["signal"] == signal.SIGTERM
        assert "code" not in server.reply(ending)
    assert keeper.process is not None
    assert keeper.process.wait(10) == 0


def test_agent_that_is_told_of_its_parents_end_outlives_a_renewal(keeper: RawKeeper) -> None:
    server = keeper.greet()
    launch = keeper.launch_fields("", argv=[sys.executable, "-I", "-S", "-c", TOLD_OF_ITS_PARENT])
    server.ask("launch", **launch)
    wait_until(lambda: keeper.stdout(launch["agent"]))
    server.send("renew", argv=keeper.command("new"))
    server.wait_for_end()
    second = keeper.greet()
    entry = second.entry(launch["agent"])
    assert (entry["phase"], entry["ended"]) == ("running", None)
    second.ask("kill", agent=launch["agent"], key="")
    assert second.ended(launch["agent"])["signal"] == signal.SIGKILL


def launch_before_slow_ones(
    keeper: RawKeeper, server: RawServer, script: str, count: int
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Launch a script some times, each before a slow launch; return what was sent and answered.

    Nobody is told that a launch is done while the next one is: so some programs end before that.
    """
    launches = [keeper.launch_fields(script) for _ in range(count)]
    asked = []
    for launch in launches:
        asked.append(server.send("launch", **launch))
        server.send("launch", **slow(keeper, "exit"))
    return list(zip(launches, map(server.reply, asked), strict=True))


def test_who_ends_before_the_answer_brings_no_descriptors(keeper: RawKeeper) -> None:
    server = keeper.greet()
    answers = launch_before_slow_ones(keeper, server, "echo out; echo error >&2; exit 7", 10)
    for launch, answer in answers:
        end = server.ended(launch["agent"])
        assert (end["exit_code"], end["stdout"], end["stderr"]) == (7, [0, 4], [0, 6])
        told = [
            frame
            for frame in server.frames
            if frame is answer or frame.get("agent") == launch["agent"]
        ]
        assert told[0] is answer
        assert told[-1] is end or told == [answer]
        assert keeper.stdout(launch["agent"]) == b"out\n"
    server.ask("ping")
    answers = launch_before_slow_ones(keeper, server, "exit 7", 10)
    assert all(server.ended(launch["agent"])["exit_code"] == 7 for launch, _ in answers)
    assert any("ended" in answer for _, answer in answers)
    assert all(("ended" in answer) is ("fds" not in answer) for _, answer in answers)


def test_what_a_leader_left_is_heard_though_it_ended_before_the_answer(keeper: RawKeeper) -> None:
    server = keeper.greet()
    left = "trap '' TERM; (sleep 0.5; echo late) & exit 3"
    for launch, answer in launch_before_slow_ones(keeper, server, left, 5):
        assert {"stdout", "stderr", "exit"} <= set(answer["fds"])
        end = server.ended(launch["agent"])
        assert (end["exit_code"], end["stdout"]) == (3, [0, 5])
        assert keeper.stdout(launch["agent"]) == b"late\n"


def test_task_is_written_though_the_program_may_have_ended(keeper: RawKeeper) -> None:
    server = keeper.greet()
    first = keeper.launch_fields("sleep 60")
    server.ask("launch", **first)
    server.ask("kill", agent=first["agent"], key="")
    server.ended(first["agent"])
    open_before = server.ask("ping")["open_fds"]
    asked = []
    for script in ("exit 4", "read line; echo $line") * 5:
        launch = keeper.launch_fields(script, stdin="close-after-task")
        asked.append((launch["agent"], server.send("launch", b"task\n" * 40_000, **launch)))
        server.send("launch", **slow(keeper, "exit"))
    for _, one in asked:
        assert "pid" in server.reply(one)
    ends = [server.ended(agent) for agent, _ in asked]
    assert [end["exit_code"] for end in ends] == [4, 0] * 5
    assert {keeper.stdout(agent) for agent, _ in asked[1::2]} == {b"task\n"}
    wait_until(lambda: server.ask("ping")["open_fds"] <= open_before)
