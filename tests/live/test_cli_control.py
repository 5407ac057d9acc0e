"""``pause``, ``resume``, ``stop``, ``kill``, ``signal``, ``write``, ``wait``."""

from __future__ import annotations

import json
import signal

from command_line import CommandLine

_TICKING = "while :; do echo tick; sleep 0.05; done"


def _status(cli: CommandLine, agent_id: str) -> str:
    status: str = json.loads(cli("status", agent_id, "--json").stdout)["status"]
    return status


def test_pause_and_resume_change_the_status_and_say_so(cli: CommandLine) -> None:
    agent_id = cli.spawn(_TICKING)
    paused = cli("pause", agent_id)
    assert (paused.returncode, paused.stdout.decode()) == (0, f"{agent_id}\tpaused\n")
    assert _status(cli, agent_id) == "paused"
    assert cli("resume", agent_id).returncode == 0
    assert _status(cli, agent_id) == "running"
    assert cli("kill", agent_id).returncode == 0


def test_stop_ends_a_paused_agent(cli: CommandLine) -> None:
    agent_id = cli.spawn(_TICKING)
    cli("pause", agent_id)
    assert cli("stop", "--grace", "1", agent_id).returncode == 0
    done = cli("wait", "--json", agent_id)
    (end,) = json.loads(done.stdout)
    assert end["status"] == "terminated"
    assert done.returncode == 128 + end["signal"]


def test_kill_takes_several_agents_at_once(cli: CommandLine) -> None:
    ids = [cli.spawn("sleep 60") for _ in range(3)]
    done = cli("kill", "--json", *ids)
    answer = json.loads(done.stdout)
    assert (answer["type"], answer["successful"]) == ("batch_control_response", 3)
    waited = cli("wait", *ids)
    assert waited.returncode == 1
    assert [line.split("\t")[2] for line in waited.stdout.decode().splitlines()] == ["SIGKILL"] * 3


def test_control_of_one_agent_that_refuses_reports_it_and_does_the_others(
    cli: CommandLine,
) -> None:
    ended = cli.spawn("true", "--wait")
    running = cli.spawn("sleep 60")
    done = cli("pause", ended, running)
    assert done.returncode == 1
    assert ended.encode() in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert done.stdout.decode() == f"{running}\tpaused\n"
    cli("kill", running)


def test_signal_takes_names_and_numbers(cli: CommandLine) -> None:
    for text in ("USR1", "sigusr1", str(int(signal.SIGUSR1))):
        agent_id = cli.spawn("trap 'exit 9' USR1; echo set; while :; do sleep 0.05; done")
        cli.wait_for_output(agent_id, b"set")
        assert cli("signal", text, agent_id).returncode == 0, text
        assert cli("wait", agent_id).returncode == 9, text


def test_signal_that_does_not_exist_is_one_line_and_exit_1(cli: CommandLine) -> None:
    agent_id = cli.spawn("sleep 60")
    done = cli("signal", "SIGNOPE", agent_id)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    cli("kill", agent_id)


def test_write_gives_a_line_and_may_close(cli: CommandLine) -> None:
    agent_id = cli.spawn("cat")
    assert cli("write", agent_id, "one").returncode == 0
    assert cli("write", agent_id, "-n", "two").returncode == 0
    assert cli("write", "--close", agent_id, "-", stdin=b"\xff\x00three").returncode == 0
    assert cli("wait", agent_id).returncode == 0
    assert cli("logs", agent_id).stdout == b"one\ntwo\xff\x00three"


def test_write_of_more_than_an_agents_buffer_is_a_usage_error(cli: CommandLine) -> None:
    agent_id = cli.spawn("sleep 60")
    done = cli("write", agent_id, "-", stdin=b"x" * 1_100_000)
    assert done.returncode == 2
    assert b"attach" in done.stderr
    cli("kill", agent_id)


def test_write_to_an_ended_agent_is_one_line_and_exit_1(cli: CommandLine) -> None:
    agent_id = cli.ended("true")
    done = cli("write", agent_id, "hello")
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def test_wait_gives_up_after_its_time_with_124(cli: CommandLine) -> None:
    agent_id = cli.spawn("sleep 60")
    done = cli("wait", "--for", "0.2", agent_id)
    assert done.returncode == 124
    assert done.stderr.count(b"\n") == 1
    cli("kill", agent_id)
