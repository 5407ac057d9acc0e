"""``spawn``: what it prints, and how it exits."""

from __future__ import annotations

import json
import signal

import pytest

from command_line import CommandLine


def test_spawn_prints_only_the_whole_id(cli: CommandLine) -> None:
    done = cli("spawn", "--backend", "sh", "--name", "one", "true")
    assert done.returncode == 0
    assert done.stderr == b""
    assert len(done.stdout.strip()) == 36
    assert done.stdout.count(b"\n") == 1


def test_spawn_wait_exits_as_the_agent(cli: CommandLine) -> None:
    assert cli("spawn", "--backend", "sh", "--wait", "exit 7").returncode == 7


def test_spawn_wait_of_an_agent_ended_by_a_signal_exits_with_128_and_its_number(
    cli: CommandLine,
) -> None:
    done = cli("spawn", "--backend", "sh", "--wait", "kill -9 $$")
    assert done.returncode == 128 + signal.SIGKILL


def test_spawn_follow_passes_both_streams_untouched(cli: CommandLine) -> None:
    task = r"printf '\377\000a\r\n'; printf 'no newline' >&2; sleep 0.2; printf last; exit 3"
    done = cli("spawn", "--backend", "sh", "--follow", task)
    assert done.stdout == b"\xff\x00a\r\nlast"
    assert done.stderr == b"no newline"
    assert done.returncode == 3


def test_spawn_reads_a_task_from_stdin(cli: CommandLine) -> None:
    done = cli("spawn", "--backend", "sh", "--follow", "-", stdin=b"echo from stdin")
    assert done.stdout == b"from stdin\n"


def test_spawn_with_environment_reaches_the_agent_where_the_backend_allows(
    cli: CommandLine,
) -> None:
    done = cli("spawn", "--backend", "sh", "--env", "COLOUR=red", "--follow", "echo $COLOUR")
    assert done.stdout == b"red\n"
    refused = cli("spawn", "--backend", "sh", "--env", "PATH=/evil", "true")
    assert refused.returncode == 1
    assert b"PATH" in refused.stderr


def test_spawn_count_starts_that_many_with_numbered_names(cli: CommandLine) -> None:
    done = cli("spawn", "--backend", "sh", "--name", "many", "--count", "5", "--wait", "true")
    assert done.returncode == 0
    ids = done.stdout.decode().split()
    assert len(set(ids)) == 5
    listed = [line.split("\t") for line in cli("ps").stdout.decode().splitlines()]
    assert {row[0] for row in listed} == set(ids)
    assert {row[1] for row in listed} == {f"many-{number}" for number in range(1, 6)}
    assert {row[2] for row in listed} == {"completed"}


def test_spawn_count_waits_and_tells_which_agents_failed(cli: CommandLine) -> None:
    task = f"mkdir {cli.folder}/first 2>/dev/null || exit 4"
    done = cli("spawn", "--backend", "sh", "--count", "3", "--wait", task)
    failed = [
        line.split("\t")[0] for line in cli("ps", "--status", "failed").stdout.decode().splitlines()
    ]
    assert len(failed) == 2
    assert sorted(done.stderr.decode().splitlines()) == sorted(
        f"descartes-fast: agent {agent_id}: exit 4" for agent_id in failed
    )
    assert done.returncode == 1


@pytest.mark.parametrize("option", ["--follow", "--wait"])
def test_spawn_left_by_ctrl_c_tells_that_the_agent_runs_on(cli: CommandLine, option: str) -> None:
    task = "echo ready; exec sleep 60"
    with cli.start("spawn", "--backend", "sh", option, task) as spawning:
        assert spawning.stdout is not None
        assert spawning.stderr is not None
        assert spawning.stdout.readline()  # its output, or its id
        spawning.send_signal(signal.SIGINT)
        assert spawning.wait(timeout=10) == 130
        words = spawning.stderr.read().decode()
    (agent_id,) = cli("ps", "-q", "--active").stdout.decode().split()
    assert words == (
        f"descartes-fast: agent {agent_id} runs on; to stop it: descartes-fast stop {agent_id}\n"
    )
    cli("kill", agent_id)


def test_spawn_count_left_by_ctrl_c_tells_how_many_run_on(cli: CommandLine) -> None:
    with cli.start("spawn", "--backend", "sh", "--count", "3", "--wait", "sleep 60") as spawning:
        assert spawning.stdout is not None
        assert spawning.stderr is not None
        ids = [spawning.stdout.readline().decode().strip() for _ in range(3)]
        spawning.send_signal(signal.SIGINT)
        assert spawning.wait(timeout=10) == 130
        assert b"3 agents run on" in spawning.stderr.read()
    cli("kill", *ids)


def test_spawn_follow_whose_reader_goes_tells_that_the_agent_runs_on(cli: CommandLine) -> None:
    endless = "while :; do echo line; sleep 0.05; done"
    with cli.start("spawn", "--backend", "sh", "--follow", endless) as spawning:
        assert spawning.stdout is not None
        assert spawning.stderr is not None
        assert spawning.stdout.readline() == b"line\n"
        spawning.stdout.close()
        assert spawning.wait(timeout=20) == 141
        assert b"runs on" in spawning.stderr.read()
    cli("kill", *cli("ps", "-q", "--active").stdout.decode().split())


def test_spawn_json_is_the_agent_and_then_its_end(cli: CommandLine) -> None:
    done = cli("spawn", "--backend", "sh", "--name", "j", "--json", "--wait", "exit 2")
    agent, end = map(json.loads, done.stdout.splitlines())
    assert (agent["name"], agent["model_backend"], agent["task"]) == ("j", "sh", "exit 2")
    assert (end["id"], end["status"], end["exit_code"]) == (agent["id"], "failed", 2)
    assert end["signal"] is None
    assert done.returncode == 2


def test_spawn_of_an_unknown_backend_is_one_line_and_exit_1(cli: CommandLine) -> None:
    done = cli("spawn", "--backend", "nosuch", "true")
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"nosuch" in done.stderr
    assert done.stdout == b""


def test_spawn_with_contradicting_options_is_a_usage_error(cli: CommandLine) -> None:
    for words in (["--count", "2", "--follow"], ["--wait", "--follow"], ["--env", "novalue"]):
        done = cli("spawn", "--backend", "sh", *words, "true")
        assert done.returncode == 2, words
        assert done.stderr.count(b"\n") == 1, words
