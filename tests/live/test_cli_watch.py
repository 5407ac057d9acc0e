"""``watch``: what is the case first, then each change as it happens."""

from __future__ import annotations

import json
import signal

from command_line import CommandLine


def test_watch_one_agent_begins_with_its_status_and_stops_at_its_end(cli: CommandLine) -> None:
    agent_id = cli.spawn("read line; exit 3")
    with cli.start("watch", agent_id) as watching:
        assert watching.stdout is not None
        first = watching.stdout.readline().decode().rstrip("\n").split("\t")
        assert first[1:3] == [agent_id, "running"]
        cli("write", agent_id, "go")
        rest = [line.decode().split("\t") for line in watching.stdout]
        assert rest[-1][2] == "failed"
        assert "exit_code=3" in rest[-1][3]
        assert watching.wait(timeout=10) == 0


def test_watch_all_shows_agents_that_come_later(cli: CommandLine) -> None:
    earlier = cli.ended("true")
    with cli.start("watch", "--json", "--heartbeats", "--output") as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert (first["agent_id"], first["status"]) == (earlier, "completed")
        agent_id = cli.ended("echo hello")
        seen = []
        for line in watching.stdout:
            update = json.loads(line)
            if update["agent_id"] == agent_id:
                seen.append(update["status"])
                if update["update_type"] == "completed":
                    break
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=10) == 130
    assert seen[-1] == "completed"
    assert "running" in seen
