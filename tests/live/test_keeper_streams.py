"""The agents' pipes: stdin that is bounded and exact, output that loses and floods nothing."""

# ruff: noqa: ASYNC221, ASYNC240 - files of a test are small and local
from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from descartes_fast.errors import InvalidState, NotFound, OutputGone, SpawnFailed, WouldBlock
from descartes_fast.server.output import OutputFile
from faults.processes import frozen
from live.keepers import TestKeeper, open_keeper, size_of, until

MIB = 1024 * 1024


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[TestKeeper]:
    async with open_keeper(tmp_path) as keeper:
        yield keeper


def blocks_of(path: str) -> int:
    return os.stat(path).st_blocks * 512


async def test_stdin_arrives_byte_for_byte_and_ends(keeper: TestKeeper) -> None:
    data = bytes(range(256)) * 2000
    launch = await keeper.launch("cat", stdin="pipe")
    assert await keeper.link.write_stdin(launch.agent_id, data) == len(data)
    assert await keeper.link.write_stdin(launch.agent_id, b"", close=True) == 0
    assert (await keeper.end(launch)).stdout_bytes == len(data)
    assert Path(launch.stdout_path).read_bytes() == data


async def test_task_on_stdin_is_first_and_may_be_the_only_thing(keeper: TestKeeper) -> None:
    task = b"t" * (5 * MIB)
    closed = await keeper.launch("cat", stdin="close-after-task", stdin_data=task)
    assert (await keeper.end(closed)).stdout_bytes == len(task)
    with pytest.raises(InvalidState):
        await keeper.link.write_stdin(closed.agent_id, b"more")
    left_open = await keeper.launch("cat", stdin="pipe", stdin_data=b"first ")
    await keeper.link.write_stdin(left_open.agent_id, b"second", close=True)
    await keeper.end(left_open)
    assert Path(left_open.stdout_path).read_bytes() == b"first second"


async def test_stdin_null_is_empty_and_refuses_writes(keeper: TestKeeper) -> None:
    launch = await keeper.shell("cat; sleep 60")
    with pytest.raises(InvalidState, match="no stdin"):
        await keeper.link.write_stdin(launch.agent_id, b"x")
    with pytest.raises(NotFound):
        await keeper.link.write_stdin(keeper.prepare("x").agent_id, b"x")


async def test_stdin_that_nobody_reads_is_bounded(keeper: TestKeeper) -> None:
    launch = await keeper.shell("sleep 1; exec cat", stdin="pipe")
    taken = 0
    with contextlib.suppress(WouldBlock):
        while taken < 2 * MIB:
            taken += await keeper.link.write_stdin(launch.agent_id, b"x" * 10_000)
    assert MIB <= taken <= MIB + 80 * 1024
    with pytest.raises(WouldBlock):
        await keeper.link.write_stdin(launch.agent_id, b"x" * 100_000)
    await until(lambda: size_of(launch.stdout_path) == taken)
    await keeper.link.write_stdin(launch.agent_id, b"the end", close=True)
    assert (await keeper.end(launch)).stdout_bytes == taken + 7


async def test_stdin_that_the_agent_closed_is_a_typed_error(keeper: TestKeeper) -> None:
    launch = await keeper.shell("exec <&-; echo closed; sleep 60", stdin="pipe")
    await keeper.stdout(launch, 7)
    with pytest.raises(InvalidState):
        await keeper.link.write_stdin(launch.agent_id, b"x")
    with pytest.raises(InvalidState):
        await keeper.link.write_stdin(launch.agent_id, b"x", close=True)


async def test_repeated_write_is_answered_and_not_written_again(keeper: TestKeeper) -> None:
    launch = await keeper.launch("cat", stdin="pipe")
    for _ in range(3):
        count = await keeper.link.write_stdin(launch.agent_id, b"once ", key="r1")
        assert count == 5
    await keeper.link.write_stdin(launch.agent_id, b"twice", close=True, key="r2")
    assert await keeper.link.write_stdin(launch.agent_id, b"twice", key="r2") == 5
    await keeper.end(launch)
    assert Path(launch.stdout_path).read_bytes() == b"once twice"


@pytest.mark.parametrize(
    "script",
    [
        "echo one >&2; echo two >/dev/stderr; echo three >&2",
        "echo one >&2; echo two | tee /dev/stderr; echo three >&2",
        "echo one >&2; echo two >/proc/self/fd/2; echo three >&2",
    ],
)
async def test_reopened_stream_loses_nothing(keeper: TestKeeper, script: str) -> None:
    launch = await keeper.shell(script)
    await keeper.end(launch)
    assert Path(launch.stderr_path).read_bytes() == b"one\ntwo\nthree\n"


async def test_output_is_told_at_once_and_then_seldom(keeper: TestKeeper) -> None:
    launch = await keeper.launch("cat", stdin="pipe")
    began = time.monotonic()
    await keeper.link.write_stdin(launch.agent_id, b"x")
    await until(lambda: launch.agent_id in keeper.events.grown)
    assert time.monotonic() - began < 0.5
    busy = await keeper.shell("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done")
    began = time.monotonic()
    await keeper.end(busy)
    told = sum(event.agent_id == busy.agent_id for event in keeper.events.all)
    assert told <= (time.monotonic() - began) / 0.002 + 3


async def test_flood_is_trimmed_and_the_disk_cap_holds(keeper: TestKeeper) -> None:
    limit = 4 * MIB
    launch = await keeper.launch("yes", output_limit_bytes=limit)
    quiet = await keeper.launch("cat", stdin="pipe")
    waits = []
    for n in range(1, 100):
        began = time.monotonic()
        await keeper.link.write_stdin(quiet.agent_id, b"x")
        await until(
            lambda n=n: (
                quiet.agent_id in keeper.events.grown  # type: ignore[misc]
                and keeper.events.grown[quiet.agent_id].stdout_bytes >= n
            )
        )
        waits.append(time.monotonic() - began)
        assert blocks_of(launch.stdout_path) <= limit + 64 * 1024
    await until(lambda: keeper.events.grown[launch.agent_id].stdout_bytes > 10 * limit)
    # Measured on a quiet machine: 1 ms; this is for a busy one.
    assert sorted(waits)[50] < 0.05
    grown = keeper.events.grown[launch.agent_id]
    assert 0 < grown.stdout_bytes - grown.stdout_start <= limit
    await keeper.link.kill(launch.agent_id)
    ended = await keeper.end(launch)
    output = OutputFile(launch.stdout_path, ended.stdout_start, ended.stdout_bytes)
    with pytest.raises(OutputGone) as gone:
        output.read(0, 10)
    assert gone.value.end == ended.stdout_start
    kept = output.read(ended.stdout_start, limit)
    assert len(kept) == ended.stdout_bytes - ended.stdout_start
    assert set(kept) == set(b"y\n")


async def test_reader_behind_a_flood_never_takes_a_hole_for_output(keeper: TestKeeper) -> None:
    launch = await keeper.launch("yes", output_limit_bytes=256 * 1024)
    await until(lambda: launch.agent_id in keeper.events.grown)
    gone = read = 0
    stop_at = time.monotonic() + 1.0
    while time.monotonic() < stop_at:
        grown = keeper.events.grown[launch.agent_id]
        output = OutputFile(launch.stdout_path, grown.stdout_start, grown.stdout_bytes)
        try:
            data = output.read(grown.stdout_start, 65536)
        except OutputGone:
            gone += 1
        else:
            read += 1
            assert b"\0" not in data
        await asyncio.sleep(0)
    assert read + gone > 10


async def test_agent_waits_at_its_limit_until_output_is_released(keeper: TestKeeper) -> None:
    limit = 128 * 1024
    launch = await keeper.python(
        "import os\nfor n in range(64): os.write(1, b'%07d\\n' % n * 2048)",
        output_limit_bytes=limit,
        output_policy="wait",
    )
    path = Path(launch.stdout_path)
    await until(lambda: size_of(path) == limit)
    await asyncio.sleep(0.2)
    assert path.stat().st_size == limit
    assert (await keeper.link.ping())["waiting_streams"] == 1
    position = 0
    data = b""
    while launch.agent_id not in keeper.events.ended or position < 64 * 16384:
        grown = keeper.events.grown[launch.agent_id]
        output = OutputFile(path, grown.stdout_start, grown.stdout_bytes)
        piece = output.read(position, 40_000)
        data += piece
        position += len(piece)
        await keeper.link.release(launch.agent_id, "stdout", position)
        assert blocks_of(launch.stdout_path) <= limit + 72 * 1024
        await asyncio.sleep(0.001)
    assert data == b"".join(b"%07d\n" % n * 2048 for n in range(64))


async def test_agent_that_waits_at_its_limit_can_be_killed(keeper: TestKeeper) -> None:
    launch = await keeper.launch("yes", output_limit_bytes=8192, output_policy="wait")
    await until(lambda: size_of(launch.stdout_path) == 8192)
    # Until the pipe holds more.
    while not (await keeper.link.ping())["waiting_streams"]:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.002)
    await keeper.link.kill(launch.agent_id)
    ended = await keeper.end(launch)
    # What the pipe held is not lost.
    assert 8192 < ended.stdout_bytes <= 8192 + 128 * 1024
    assert os.stat(launch.stdout_path).st_size == ended.stdout_bytes


async def test_total_limit_trims_the_largest_and_lets_the_rest_wait(keeper: TestKeeper) -> None:
    await keeper.link.set_total_limit(2 * MIB)
    floods = [await keeper.launch("yes") for _ in range(3)]
    await until(
        lambda: all(
            launch.agent_id in keeper.events.grown
            and keeper.events.grown[launch.agent_id].stdout_bytes > 4 * MIB
            for launch in floods
        )
    )
    small = await keeper.shell("echo small; sleep 60")
    assert await keeper.stdout(small, 6) == b"small\n"
    with frozen(keeper.link.pid):  # they change, one is looked at after the other
        kept = sum(blocks_of(launch.stdout_path) for launch in floods)
    assert kept <= 2 * MIB + 256 * 1024
    for launch in floods:
        await keeper.link.kill(launch.agent_id)
    waits = await keeper.launch("yes", output_policy="wait")
    await until(lambda: size_of(waits.stdout_path) > MIB)
    await asyncio.sleep(0.1)
    size = os.stat(waits.stdout_path).st_size
    assert size <= 2 * MIB
    await keeper.link.set_total_limit(None)
    await until(lambda: size_of(waits.stdout_path) > size)


@pytest.fixture
async def small_disk(tmp_path: Path) -> AsyncIterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=64", "none", str(disk)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a small file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def test_agent_that_has_said_nothing_costs_three_descriptors_and_no_file(
    keeper: TestKeeper,
) -> None:
    before = int(str((await keeper.link.ping())["open_fds"]))
    launch = await keeper.launch("sleep", "60")
    figures = await keeper.link.ping()
    assert figures["open_fds"] == before + 3
    assert list(Path(launch.stdout_path).parent.iterdir()) == []


async def test_full_disk_makes_the_agent_wait_and_loses_nothing(
    keeper: TestKeeper, small_disk: Path
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"b" * (700 * 1024))
    launch = await keeper.python(
        "import os\nfor n in range(50): os.write(1, b'%07d\\n' % n * 1024)",
        stdout_path=str(small_disk / "stdout"),
        stderr_path=str(small_disk / "stderr"),
    )
    await until(lambda: b"cannot be written" in log_of(keeper))
    await asyncio.sleep(0.1)
    assert launch.agent_id not in keeper.events.ended
    ballast.unlink()
    assert (await keeper.end(launch)).stdout_bytes == 50 * 8192
    expected = b"".join(b"%07d\n" % n * 1024 for n in range(50))
    assert Path(launch.stdout_path).read_bytes() == expected


async def test_launch_on_a_full_disk_is_refused_and_leaves_nothing(
    keeper: TestKeeper, small_disk: Path
) -> None:
    async def started(n: int) -> bool:
        paths = {f"{name}_path": str(small_disk / str(n) / name) for name in ("stdout", "stderr")}
        try:
            await keeper.launch("true", **paths)
        except SpawnFailed as error:
            refusals.append(str(error))
        return not refusals

    refusals: list[str] = []
    n = 0
    while await started(n):
        n += 1
    assert "the disk is full" in refusals[0]
    assert not (small_disk / str(n)).exists()
    assert (await keeper.link.ping())["known"] == n


def log_of(keeper: TestKeeper) -> bytes:
    return (keeper.directory.parent / "run" / "keeper.log").read_bytes()


async def test_server_that_does_not_listen_costs_the_keeper_little(keeper: TestKeeper) -> None:
    """Growth is told in fewer words, ends are all told, when the server listens again."""
    floods = [await keeper.launch("yes", output_limit_bytes=MIB) for _ in range(4)]
    short = [await keeper.shell("echo x") for _ in range(50)]
    wire = keeper.link._connection._wire
    loop = asyncio.get_running_loop()
    loop.remove_reader(wire._socket.fileno())
    before = memory_of(keeper.link.pid)
    await asyncio.sleep(1.0)
    assert memory_of(keeper.link.pid) - before < 8 * MIB
    loop.add_reader(wire._socket.fileno(), wire._read)
    for launch in short:
        assert (await keeper.end(launch)).stdout_bytes == 2
    for launch in floods:
        length = keeper.events.grown[launch.agent_id].stdout_bytes
        await until(lambda: keeper.events.grown[launch.agent_id].stdout_bytes > length)  # noqa: B023


def memory_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
