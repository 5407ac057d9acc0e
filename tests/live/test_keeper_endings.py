"""How agents end: with exact exit codes, with their whole tree, and with one report."""

# ruff: noqa: ASYNC240 - files of a test are small and local
from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from descartes_fast.errors import InvalidState, NotFound
from descartes_fast.server.keeper.trees import MARKER
from descartes_fast.server.keeper_link import Ended
from live.keepers import TestKeeper, is_alive, open_keeper, until

# More with DESCARTES_FAST_MANY_AGENTS=10000.
MANY = int(os.environ.get("DESCARTES_FAST_MANY_AGENTS", "1000"))


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[TestKeeper]:
    async with open_keeper(tmp_path) as keeper:
        yield keeper


async def number_in(path: Path) -> int:
    """Return the number that a script writes to a file."""
    await until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


async def test_many_short_agents_keep_their_exit_codes(keeper: TestKeeper) -> None:
    """No exit code lost or wrong, no zombie, whatever the order of their ends."""
    launches = [keeper.prepare("sh", "-c", f"exit {n % 256}") for n in range(MANY)]
    in_flight = asyncio.Semaphore(64)

    async def start(n: int) -> None:
        async with in_flight:
            await keeper.link.launch(launches[n])

    await asyncio.gather(*(start(n) for n in range(MANY)))
    await until(lambda: len(keeper.events.ended) == MANY, 30)
    for n, launch in enumerate(launches):
        assert keeper.events.ended[launch.agent_id].exit_code == n % 256
    await asyncio.gather(
        *(keeper.link.forget(launch.agent_id, remove_output=True) for launch in launches)
    )
    figures = await keeper.link.ping()
    assert (figures["agents"], figures["known"]) == (0, 0)
    children = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/stat")
        if _parent(path) == keeper.link.pid
    ]
    assert children == []


def _parent(stat: Path) -> int:
    try:
        return int(stat.read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


async def test_death_by_signal_is_told_from_an_exit_code(keeper: TestKeeper) -> None:
    by_signal = await keeper.shell("kill -USR1 $$")
    by_code = await keeper.shell("exit 138")
    first, second = await keeper.end(by_signal), await keeper.end(by_code)
    assert (first.exit_code, first.signal) == (None, signal.SIGUSR1)
    assert (second.exit_code, second.signal) == (138, None)


async def test_end_comes_after_all_output_and_with_its_length(keeper: TestKeeper) -> None:
    for _ in range(20):
        launch = await keeper.shell("head -c 300000 /dev/zero; echo end >&2")
        ended = await keeper.end(launch)
        assert (ended.stdout_bytes, ended.stderr_bytes) == (300_000, 4)
        assert os.stat(launch.stdout_path).st_size == 300_000
        told = [event for event in keeper.events.all if event.agent_id == launch.agent_id]
        assert [isinstance(event, Ended) for event in told].index(True) == len(told) - 1
        assert (told[-2].stdout_bytes, told[-2].stderr_bytes) == (300_000, 4)


async def test_end_carries_what_was_used(keeper: TestKeeper) -> None:
    launch = await keeper.python(
        "import time\nx = bytearray(100 << 20)\nwhile time.process_time() < 0.2: pass"
    )
    ended = await keeper.end(launch)
    assert ended.user_secs + ended.system_secs >= 0.15
    assert ended.max_rss_bytes > 100 << 20
    assert abs(ended.ended_at_ns - time.time_ns()) < 5e9


async def test_exit_ends_the_background_children_that_hold_stdout(keeper: TestKeeper) -> None:
    launch = await keeper.shell("sleep 60 & echo $!")
    began = time.monotonic()
    ended = await keeper.end(launch)
    assert (ended.exit_code, ended.stdout_bytes > 0) == (0, True)
    assert time.monotonic() - began < 1.5
    assert not is_alive(await keeper.number(launch))


async def test_exit_kills_children_that_ignore_sigterm_after_two_seconds(
    keeper: TestKeeper,
) -> None:
    launch = await keeper.shell(
        "(trap '' TERM; echo ready; sleep 60; sleep 60) & sleep 0.2; exit 5"
    )
    await keeper.stdout(launch, 6)
    began = time.monotonic()
    ended = await keeper.end(launch)
    assert ended.exit_code == 5
    assert 1.5 < time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("how", "escape"),
    [
        ("exit", "setsid"),
        ("stop", "setsid"),
        ("kill", "setsid"),
        ("stop", "env -i setsid"),
        ("kill", "env -i setsid"),
    ],
)
async def test_children_that_left_the_session_end_too(
    keeper: TestKeeper, tmp_path: Path, how: str, escape: str
) -> None:
    stray = tmp_path / "stray"
    launch = keeper.prepare(
        "sh", "-c", f"{escape} /bin/sh -c 'echo $$ > {stray}; exec sleep 60' & wait"
    )
    leader = (await keeper.link.launch(launch)).pid
    pid = await number_in(stray)
    if how == "stop":
        await keeper.link.stop(launch.agent_id, 5)
    elif how == "kill":
        await keeper.link.kill(launch.agent_id)
    else:
        os.kill(leader, signal.SIGKILL)
    await until(lambda: not is_alive(pid), 1.0)
    await keeper.end(launch, 1.0)


async def test_what_another_has_started_in_an_agents_name_ends_after_it(
    keeper: TestKeeper,
) -> None:
    """No descendant of the agent's, so its end does not wait for it."""
    launch = await keeper.launch("cat", stdin="pipe")
    mark = {MARKER: f"{keeper.link.instance}/{launch.agent_id}"}
    other = await asyncio.create_subprocess_exec("/bin/sleep", "60", env=mark)
    await keeper.link.write_stdin(launch.agent_id, b"", close=True)
    await keeper.end(launch)
    assert await asyncio.wait_for(other.wait(), 10) == -signal.SIGKILL


async def test_kill_ends_a_tree_that_keeps_forking(keeper: TestKeeper) -> None:
    launch = await keeper.shell(
        "i=0; while [ $i -lt 300 ]; do setsid sleep 60 & sleep 60 & i=$((i+1)); done; wait"
    )
    await asyncio.sleep(0.1)
    await keeper.link.kill(launch.agent_id)
    ended = await keeper.end(launch)
    assert ended.signal == signal.SIGKILL
    marker = f"/{launch.agent_id}".encode()
    left = [
        path
        for path in Path("/proc").glob("[0-9]*/environ")
        if marker in _bytes_of(path) and is_alive(int(path.parent.name))
    ]
    assert left == []


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def test_stop_gives_the_agent_its_grace(keeper: TestKeeper) -> None:
    polite = await keeper.shell("trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done")
    stubborn = await keeper.shell("trap '' TERM; echo up; while :; do sleep 0.05; done")
    await keeper.stdout(polite, 3)
    await keeper.stdout(stubborn, 3)
    began = time.monotonic()
    await keeper.link.stop(polite.agent_id, 10)
    assert time.monotonic() - began < 5, "stop waits for the end"
    began = time.monotonic()
    await keeper.link.stop(stubborn.agent_id, 0.5)
    assert (await keeper.end(polite)).exit_code == 9
    assert (await keeper.end(stubborn)).signal == signal.SIGKILL
    assert 0.5 <= time.monotonic() - began < 8


async def test_second_stop_can_only_shorten_the_grace(keeper: TestKeeper) -> None:
    launch = await keeper.shell("trap '' TERM; echo up; while :; do sleep 0.05; done")
    await keeper.stdout(launch, 3)
    await keeper.link.stop(launch.agent_id, 60)
    await keeper.link.stop(launch.agent_id, 0.2)
    await keeper.link.stop(launch.agent_id, 60)
    assert (await keeper.end(launch, 3)).signal == signal.SIGKILL


async def test_stopped_agent_can_be_ended(keeper: TestKeeper) -> None:
    launch = await keeper.shell("trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done")
    await keeper.stdout(launch, 3)
    await keeper.link.signal(launch.agent_id, signal.SIGSTOP, tree=True)
    await keeper.link.stop(launch.agent_id, 5)
    assert (await keeper.end(launch, 3)).exit_code == 3


async def test_pause_stops_the_whole_group_and_continues_it(keeper: TestKeeper) -> None:
    launch = await keeper.shell("(while :; do echo tick; sleep 0.01; done) & wait")
    await keeper.stdout(launch, 20)
    await keeper.link.signal(launch.agent_id, signal.SIGSTOP, tree=True)
    await asyncio.sleep(0.1)
    size = os.stat(launch.stdout_path).st_size
    await asyncio.sleep(0.2)
    assert os.stat(launch.stdout_path).st_size == size
    await keeper.link.signal(launch.agent_id, signal.SIGCONT, tree=True)
    await keeper.stdout(launch, size + 20)


async def test_ended_agent_is_never_signalled(keeper: TestKeeper) -> None:
    launch = await keeper.launch("true")
    await keeper.end(launch)
    with pytest.raises(InvalidState):
        await keeper.link.signal(launch.agent_id, signal.SIGTERM)
    with pytest.raises(InvalidState):
        await keeper.link.stop(launch.agent_id, 1)
    with pytest.raises(InvalidState):
        await keeper.link.kill(launch.agent_id)
    await keeper.link.forget(launch.agent_id)
    with pytest.raises(NotFound):
        await keeper.link.kill(launch.agent_id)


async def test_leader_keeps_its_id_until_its_group_is_gone(keeper: TestKeeper) -> None:
    """A process id that was reaped could be a stranger's when the group is signalled."""
    launch = keeper.prepare(
        "sh", "-c", "(trap '' TERM; echo up; sleep 60; sleep 60) & exec sleep 0.2"
    )
    pid = (await keeper.link.launch(launch)).pid
    await keeper.stdout(launch, 3)
    await until(lambda: not is_alive(pid))
    while launch.agent_id not in keeper.events.ended:
        # A zombie has its entry until it is reaped.
        assert Path(f"/proc/{pid}").exists() or launch.agent_id in keeper.events.ended
        await asyncio.sleep(0.02)
        if not Path(f"/proc/{pid}").exists():
            await keeper.end(launch, 0.5)
    assert not Path(f"/proc/{pid}").exists()


async def test_agent_that_runs_cannot_be_forgotten(keeper: TestKeeper) -> None:
    launch = await keeper.launch("sleep", "60")
    with pytest.raises(InvalidState):
        await keeper.link.forget(launch.agent_id)


async def test_forgotten_output_can_be_removed(keeper: TestKeeper) -> None:
    launch = await keeper.launch("echo", "x")
    await keeper.end(launch)
    await keeper.link.forget(launch.agent_id, remove_output=True)
    assert not Path(launch.stdout_path).exists()
    assert not Path(launch.stderr_path).exists()


async def test_adopted_zombies_are_reaped(keeper: TestKeeper, tmp_path: Path) -> None:
    """A daemon's child whose parent has gone becomes the keeper's to collect."""
    orphan = tmp_path / "orphan"
    await keeper.shell(f"(sh -c 'echo $$ > {orphan}; sleep 0.2' &) ; sleep 60")
    pid = await number_in(orphan)
    await until(lambda: not Path(f"/proc/{pid}").exists(), 3)
