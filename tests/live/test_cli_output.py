"""``logs``, ``attach``, ``query``: output byte for byte."""

from __future__ import annotations

import json
import signal

from command_line import CommandLine


def test_logs_print_stdout_or_stderr_as_it_was_written(cli: CommandLine) -> None:
    agent_id = cli.spawn(r"printf 'a\000\377\r\n'; printf 'b\033[1m' >&2", "--wait")
    assert cli("logs", agent_id).stdout == b"a\x00\xff\r\n"
    assert cli("logs", "--stderr", agent_id).stdout == b"b\x1b[1m"


def test_logs_take_nothing_away(cli: CommandLine) -> None:
    agent_id = cli.ended("echo once")
    assert cli("logs", agent_id).stdout == cli("logs", agent_id).stdout == b"once\n"


def test_logs_follow_to_the_last_byte_of_a_megabyte(cli: CommandLine) -> None:
    agent_id = cli.spawn("seq 1 150000; sleep 0.3; echo end")
    done = cli("logs", "-f", agent_id)
    assert done.stdout == b"".join(b"%d\n" % n for n in range(1, 150_001)) + b"end\n"
    assert done.returncode == 0


def test_logs_follow_an_agent_that_is_silent_for_longer_than_the_timeout(
    cli: CommandLine,
) -> None:
    agent_id = cli.spawn("sleep 2; echo late")
    assert cli("--timeout", "0.5", "logs", "-f", agent_id).stdout == b"late\n"


def test_logs_tell_how_much_was_trimmed(cli: CommandLine) -> None:
    agent_id = cli.ended("head -c 9000000 /dev/zero; echo; echo end")
    done = cli("logs", agent_id)
    assert done.returncode == 0
    assert done.stdout.endswith(b"\0\nend\n")
    assert len(done.stdout) < 9_000_000
    assert b"bytes of output are gone" in done.stderr
    assert cli("logs", "--tail", "1", agent_id).stdout == b"end\n"
    follow = cli("attach", "--no-stdin", "--history", agent_id)
    assert follow.stdout.endswith(b"\0\nend\n")
    assert b"bytes of output are gone" in follow.stderr


def test_logs_follow_only_the_stream_asked_for(cli: CommandLine) -> None:
    # Of stderr more than the server keeps: its loss is no news here.
    agent_id = cli.ended("echo out; head -c 6000000 /dev/zero >&2; exit 3")
    out = cli("logs", "-f", agent_id)
    assert (out.stdout, out.stderr, out.returncode) == (b"out\n", b"", 0)
    err = cli("logs", "-f", "--stderr", agent_id)
    assert b"bytes of output are gone" in err.stderr
    assert 0 < len(err.stdout) < 6_000_000
    assert set(err.stdout) == {0}


def test_logs_tail_begins_with_the_last_lines(cli: CommandLine) -> None:
    agent_id = cli.ended("seq 1 30000")
    lines = [b"%d\n" % n for n in range(1, 30_001)]
    for count in (0, 1, 3, 20_000, 50_000):
        expected = b"".join(lines[max(0, 30_000 - count) :])
        assert cli("logs", "--tail", str(count), agent_id).stdout == expected, count


def test_logs_tail_counts_a_last_line_without_newline(cli: CommandLine) -> None:
    agent_id = cli.spawn(r"printf 'one\ntwo\nthree'", "--wait")
    assert cli("logs", "--tail", "1", agent_id).stdout == b"three"
    assert cli("logs", "--tail", "2", agent_id).stdout == b"two\nthree"


def test_logs_json_is_log_messages(cli: CommandLine) -> None:
    agent_id = cli.ended("printf hi")
    message = json.loads(cli("logs", "--json", agent_id).stdout)
    assert message["type"] == "log_stream"
    assert bytes(message["data"]) == b"hi"
    assert message["sequence"] == 0


def test_attach_joins_stdin_and_output_and_exits_as_the_agent(cli: CommandLine) -> None:
    agent_id = cli.spawn("cat; echo bye >&2; exit 5")
    done = cli("attach", agent_id, stdin=b"\xff one\ntwo")
    assert done.stdout == b"\xff one\ntwo"
    assert done.stderr == b"bye\n"
    assert done.returncode == 5


def test_attach_passes_more_than_the_agent_takes_at_once(cli: CommandLine) -> None:
    agent_id = cli.spawn("sleep 0.5; wc -c")
    done = cli("attach", agent_id, stdin=b"x" * 3_000_000)
    assert done.stdout.strip() == b"3000000"
    assert done.returncode == 0


def test_attach_to_an_agent_whose_stdin_is_closed_tells_it_and_goes_on(cli: CommandLine) -> None:
    agent_id = cli.spawn("cat; sleep 1; echo still here")
    cli("write", "--close", agent_id, "one")
    done = cli("attach", "--history", agent_id, stdin=b"two")
    assert done.stdout == b"one\nstill here\n"
    assert done.stderr.startswith(b"descartes-fast: stdin: ")
    assert done.stderr.count(b"\n") == 1
    assert done.returncode == 0


def test_attach_left_by_ctrl_c_leaves_the_agent_running(cli: CommandLine) -> None:
    agent_id = cli.spawn("echo ready; sleep 60")
    with cli.start("attach", "--history", agent_id) as attached:
        assert attached.stdout is not None
        assert attached.stderr is not None
        assert attached.stdout.readline() == b"ready\n"
        attached.send_signal(signal.SIGINT)
        assert attached.wait(timeout=10) == 130
        assert attached.stderr.read() == b""
    assert cli("ps", "-q", "--active").stdout.decode().split() == [agent_id]
    cli("kill", agent_id)


def test_query_finds_lines(cli: CommandLine) -> None:
    agent_id = cli.ended("seq 1 100; echo oops >&2")
    assert cli("query", agent_id, "--filter", "^9.$", "--limit", "2").stdout == b"90\n91\n"
    more = cli("query", agent_id, "--filter", "^9.$", "--limit", "2")
    assert b"--offset 2" in more.stderr
    assert cli("query", agent_id, "--stream", "stderr").stdout == b"oops\n"
    answer = json.loads(cli("query", agent_id, "--limit", "1", "--json").stdout)
    assert (answer["type"], answer["lines"]) == ("output_query_response", ["1"])


def test_query_with_a_broken_regex_is_one_line_and_exit_1(cli: CommandLine) -> None:
    agent_id = cli.ended("echo x")
    done = cli("query", agent_id, "--filter", "(")
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
