"""A keeper that has no descriptor left keeps its agents, sees their ends and lets its server in."""

from __future__ import annotations

import os
import resource
import signal
import sys
from itertools import count

import pytest

from live.keepers import is_alive
from live.raw_keeper import RawKeeper, RawServer, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def limit(keeper: RawKeeper, descriptors: int) -> None:
    _, most = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (descriptors, most))


def first_free(keeper: RawKeeper) -> int:
    """Return how many descriptors are open without a gap: as a limit it leaves none free."""
    taken = {int(name) for name in os.listdir(f"/proc/{keeper.pid}/fd")}
    return next(number for number in count() if number not in taken)


def launched(keeper: RawKeeper, server: RawServer, before: str = "") -> tuple[str, int, int]:
    """Start an agent with a child that leaves its session; return its id and both processes."""
    launch = keeper.launch_fields(before + "setsid sleep 60 & echo $!; exec sleep 60")
    reply = server.ask("launch", **launch)
    wait_until(lambda: keeper.stdout(launch["agent"]).endswith(b"\n"))
    return launch["agent"], reply["pid"], int(keeper.stdout(launch["agent"]))


def test_agent_that_will_not_end_is_killed_with_all_it_has(keeper: RawKeeper) -> None:
    server = keeper.greet()
    agent, _, child = launched(keeper, server, "trap '' TERM; ")
    limit(keeper, first_free(keeper))
    server.ask("stop", agent=agent, grace_secs=0.1)
    assert server.ended(agent)["signal"] == signal.SIGKILL
    assert not is_alive(child)


def test_end_is_seen_as_soon_as_there_are_descriptors_again(keeper: RawKeeper) -> None:
    server = keeper.greet()
    agent, leader, child = launched(keeper, server)
    usual, _ = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE)
    limit(keeper, 3)
    os.kill(leader, signal.SIGTERM)
    wait_until(lambda: not is_alive(leader))
    for _ in range(20):
        assert server.ask("ping")["agents"] == 1
    limit(keeper, usual)
    assert server.ended(agent)["signal"] == signal.SIGTERM
    assert not is_alive(child)


def test_server_comes_back_to_a_keeper_without_a_free_descriptor(keeper: RawKeeper) -> None:
    server = keeper.greet()
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (40, 40))
    reply = {}
    while "code" not in reply:
        reply = server.ask("launch", **keeper.launch_fields("sleep 60"))
    guests = [keeper.connect() for _ in range(12)]
    live = server.ask("ping")["agents"]
    server.close()
    again = keeper.connect()
    assert again.is_greeted()
    assert again.ask("ping")["agents"] == live > 0
    again.close()
    assert keeper.connect().is_greeted()
    for guest in guests:
        guest.close()
