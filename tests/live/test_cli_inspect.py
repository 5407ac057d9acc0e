"""``ps``, ``status``, ``health``, and agents named by the beginnings of their ids."""

from __future__ import annotations

import json

from command_line import CommandLine


def test_ps_in_a_pipe_is_text_with_tabs(cli: CommandLine) -> None:
    agent_id = cli.spawn("sleep 60", "--name", "sleeper")
    line = cli("ps").stdout.decode()
    row = line.rstrip("\n").split("\t")
    assert row[:4] == [agent_id, "sleeper", "running", "sh"]
    assert row[5] == "sleep 60"
    assert line.count("\n") == 1
    cli("kill", agent_id)


def test_ps_filters_by_status_and_by_being_active(cli: CommandLine) -> None:
    ended = cli.spawn("true", "--wait")
    running = cli.spawn("sleep 60")
    assert cli("ps", "-q", "--status", "completed").stdout.decode().split() == [ended]
    assert cli("ps", "-q", "--active").stdout.decode().split() == [running]
    assert len(cli("ps", "-q").stdout.split()) == 2
    assert len(cli("ps", "-q", "--limit", "1").stdout.split()) == 1
    cli("kill", running)


def test_ps_strips_control_characters_of_tasks(cli: CommandLine) -> None:
    cli.ended("true\n#\x1b]0;gotcha\x07\tx")
    out = cli("ps").stdout
    assert b"\x1b" not in out
    assert b"\x07" not in out
    assert out.count(b"\n") == 1
    assert out.count(b"\t") == 5


def test_ps_json_is_a_list_of_agents(cli: CommandLine) -> None:
    agent_id = cli.spawn("true", "--wait", "--name", "j")
    (agent,) = json.loads(cli("ps", "--json").stdout)
    assert agent["id"] == agent_id
    assert agent["status"] == "completed"
    assert cli("ps", "--json", "--status", "paused").stdout == b"[]\n"


def test_status_tells_how_an_agent_ended(cli: CommandLine) -> None:
    agent_id = cli.spawn("printf 12345", "--wait", "--meta", "ticket=77")
    facts = dict(
        line.split("\t", 1) for line in cli("status", agent_id).stdout.decode().splitlines()
    )
    assert facts["id"] == agent_id
    assert facts["status"] == "completed"
    assert facts["exit_code"] == "0"
    assert facts["stdout_bytes"] == "5"
    assert "ticket=77" in facts["metadata"]
    answer = json.loads(cli("status", agent_id, "--json").stdout)
    assert answer["type"] == "command_response"
    assert answer["data"]["exit_code"] == 0


def test_health_of_a_healthy_server_exits_0(cli: CommandLine) -> None:
    done = cli("health")
    facts = dict(line.split("\t", 1) for line in done.stdout.decode().splitlines())
    assert done.returncode == 0
    assert facts["healthy"] == "yes"
    assert facts["server_id"] == "under-test"
    answer = json.loads(cli("health", "--json").stdout)
    assert (answer["type"], answer["healthy"]) == ("health_check_response", True)


def test_an_id_may_be_cut_to_what_is_unique(cli: CommandLine) -> None:
    agent_id = cli.ended("true")
    for text in (agent_id[:4], agent_id[:12].upper(), agent_id.replace("-", "")):
        assert cli("status", text).returncode == 0, text


def test_an_ambiguous_id_is_one_line_and_exit_1(cli: CommandLine) -> None:
    done = cli("spawn", "--backend", "sh", "--count", "17", "--wait", "true")
    first = [agent_id[0] for agent_id in done.stdout.decode().split()]
    shared = next(digit for digit in first if first.count(digit) > 1)  # 17 ids, 16 digits
    refused = cli("status", shared)
    assert refused.returncode == 1
    assert refused.stderr.count(b"\n") == 1
    assert b"agents" in refused.stderr


def test_an_unknown_id_is_one_line_and_exit_1(cli: CommandLine) -> None:
    for text in ("0123abc", "00000000-0000-4000-8000-000000000001"):
        done = cli("status", text)
        assert done.returncode == 1, text
        assert done.stderr.count(b"\n") == 1
        assert done.stdout == b""


def test_what_cannot_begin_an_id_is_a_usage_error(cli: CommandLine) -> None:
    assert cli("status", "xyz").returncode == 2
