"""Every operation on real agents, asked by plain messages."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from descartes_fast import (
    AgentStatus,
    BackendConfig,
    ControlCommandType,
    HealthCheckRequest,
    ListAgentsRequest,
)
from raw_peers import Peer, batch_of, command_of, new_id, peer

if TYPE_CHECKING:
    from conftest import StartServer
    from descartes_fast.server import ZmqAgentServer

NOBODY = uuid.UUID(int=7)


@pytest.fixture
async def asking(server: ZmqAgentServer) -> AsyncIterator[Peer]:
    async with peer(server.endpoint) as connected:
        yield connected


async def test_spawn_replies_after_the_exec_with_a_running_process(asking: Peer) -> None:
    response = await asking.spawn_response("exec sleep 60", name="sleeper", metadata={"a": "b"})
    info = response.agent_info
    assert response.success
    assert info is not None
    assert (info.name, info.status, info.model_backend) == ("sleeper", AgentStatus.RUNNING, "sh")
    data = await asking.data(info, "get_status")
    assert os.getpgid(data["pid"]) == os.getsid(data["pid"]) == data["pid"]
    assert data["metadata"] == {"a": "b"}
    assert data["seq"] == 2
    assert data["exit_code"] is data["signal"] is data["ended_at"] is None


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("/no/such/program",), "spawn_failed"),
        (("/etc/passwd",), "spawn_failed"),
        (("/tmp",), "spawn_failed"),
    ],
)
async def test_spawn_of_what_cannot_be_executed_fails_and_leaves_nothing(
    start_server: StartServer, command: tuple[str, ...], code: str
) -> None:
    server = await start_server(backends={"broken": BackendConfig(command=command)})
    async with peer(server.endpoint) as asking:
        response = await asking.spawn_response("x", "broken")
        assert not response.success
        assert response.agent_info is None
        assert (response.error or "").startswith(f"{code}: ")
        listed = await asking.ask(ListAgentsRequest(request_id=new_id()))
        assert listed.agents == ()
    assert server.statistics().spawn_failures == 1
    agents = server.config.state_path() / "agents"
    async with asyncio.timeout(5):
        while list(agents.iterdir()):  # noqa: ASYNC110  (a folder is no event)
            await asyncio.sleep(0.01)


async def test_spawn_of_unknown_backend_names_those_there_are(asking: Peer) -> None:
    response = await asking.spawn_response("x", "no-such-backend")
    assert (response.error or "").startswith("invalid: ")
    assert "sh" in (response.error or "")


async def test_spawn_that_runs_out_of_time_leaves_no_process_and_no_agent(asking: Peer) -> None:
    response = await asking.spawn_response("exec sleep 60", timeout_secs=0)
    assert (response.error or "").startswith("timeout: ")
    listed = await asking.ask(ListAgentsRequest(request_id=new_id()))
    assert listed.agents == ()


@pytest.mark.parametrize(
    ("script", "status", "exit_code", "number"),
    [
        ("exit 0", "completed", 0, None),
        ("exit 3", "failed", 3, None),
        ("kill -9 $$", "failed", None, signal.SIGKILL),
    ],
)
async def test_end_by_itself_has_its_exact_code(
    asking: Peer, script: str, status: str, exit_code: int | None, number: int | None
) -> None:
    data = await asking.end(await asking.spawn(script))
    assert (data["status"], data["exit_code"], data["signal"]) == (status, exit_code, number)
    assert data["ended_at"] >= data["started_at"]


async def test_list_filters_by_status_and_gives_the_newest_first(asking: Peer) -> None:
    ended = await asking.spawn("true", name="ended")
    await asking.end(ended)
    running = [await asking.spawn("exec sleep 60", name=f"running-{n}") for n in range(3)]

    async def names(**fields: Any) -> list[str]:
        response = await asking.ask(ListAgentsRequest(request_id=new_id(), **fields))
        assert response.success
        return [info.name for info in response.agents]

    assert await names() == ["running-2", "running-1", "running-0", "ended"]
    assert await names(filter_status=AgentStatus.COMPLETED) == ["ended"]
    assert await names(filter_status=AgentStatus.RUNNING, limit=2) == ["running-2", "running-1"]
    assert await names(limit=0) == []
    assert len(running) == 3


async def test_pause_stops_the_whole_group_and_resume_wakes_it(asking: Peer) -> None:
    agent = await asking.spawn("sleep 60 & echo $!; wait")
    child = int(
        (await asking.data(agent, "read_stdout", {"wait_secs": 5, "encoding": "text"}))["data"]
    )
    paused = await asking.control(agent, "pause")
    assert (paused.status, paused.data) == (AgentStatus.PAUSED, {"paused": True, "mode": "forced"})
    assert await state_of(child, "T")
    listed = await asking.ask(ListAgentsRequest(request_id=new_id()))
    assert listed.agents[0].pause_mode.value == "forced"
    assert listed.agents[0].paused_at >= listed.agents[0].started_at
    again = await asking.control(agent, "pause")
    assert again.success
    resumed = await asking.control(agent, "resume")
    assert (resumed.status, resumed.data) == (AgentStatus.RUNNING, {"resumed": True})
    assert await state_of(child, "S")
    listed = await asking.ask(ListAgentsRequest(request_id=new_id()))
    assert listed.agents[0].paused_at is listed.agents[0].pause_mode is None


async def test_cooperative_pause_is_refused_where_no_backend_promises_it(asking: Peer) -> None:
    agent = await asking.spawn("exec sleep 60")
    refused = await asking.control(agent, "pause", {"force": False})
    assert (refused.error or "").startswith("unsupported: ")
    assert refused.status is AgentStatus.RUNNING


async def test_cooperative_pause_is_a_line_on_stdin(start_server: StartServer) -> None:
    backend = BackendConfig(command=("cat",), stdin="pipe", pause="cooperative")
    server = await start_server(backends={"listener": backend})
    async with peer(server.endpoint) as asking:
        agent = await asking.spawn("", "listener")
        assert await asking.data(agent, "pause") == {"paused": True, "mode": "cooperative"}
        assert await asking.data(agent, "resume") == {"resumed": True}
        await asking.data(agent, "write_stdin", {"close": True})
        assert await asking.read_to_end(agent) == '{"type":"pause"}\n{"type":"resume"}\n'


async def test_stop_ends_within_the_grace_and_terminates_whatever_the_code(asking: Peer) -> None:
    agent = await asking.spawn("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    await asking.data(agent, "read_stdout", {"wait_secs": 5})
    assert await asking.data(agent, "stop") == {}
    data = await asking.end(agent)
    assert (data["status"], data["exit_code"]) == ("terminated", 0)


async def test_stop_kills_after_its_grace(asking: Peer) -> None:
    agent = await asking.spawn("trap '' TERM; echo ready; while :; do sleep 0.01; done")
    await asking.data(agent, "read_stdout", {"wait_secs": 5})
    assert await asking.data(agent, "stop", {"grace_secs": 0.1}) == {}
    data = await asking.end(agent)
    assert (data["status"], data["signal"]) == ("terminated", signal.SIGKILL)


async def test_paused_agent_can_be_stopped(asking: Peer) -> None:
    agent = await asking.spawn("exec sleep 60")
    await asking.data(agent, "pause")
    await asking.data(agent, "stop")
    data = await asking.end(agent)
    assert (data["status"], data["signal"]) == ("terminated", signal.SIGTERM)


async def test_ended_agent_is_stopped_already_but_takes_nothing_else(asking: Peer) -> None:
    agent = await asking.spawn("echo kept")
    await asking.end(agent)
    for command in ("stop", "kill"):
        response = await asking.control(agent, command)
        assert (response.success, response.status) == (True, AgentStatus.COMPLETED)
    for command, payload in (
        ("pause", None),
        ("resume", None),
        ("write_stdin", {"data": "x"}),
        ("signal", {"signal": "INT"}),
    ):
        response = await asking.control(agent, command, payload)
        assert (response.error or "").startswith("state: ")
        assert response.status is AgentStatus.COMPLETED
    assert (await asking.data(agent, "query_output"))["stdout"] == ["kept"]


@pytest.mark.parametrize("command", [command.value for command in ControlCommandType])
async def test_command_for_an_unknown_agent_is_not_found(asking: Peer, command: str) -> None:
    response = await asking.control(NOBODY, command)
    assert not response.success
    assert response.status is None
    assert (response.error or "").startswith("not_found: ")


async def test_write_takes_text_and_bytes_and_closes(asking: Peer) -> None:
    agent = await asking.spawn("exec cat")
    assert await asking.data(agent, "write_stdin", {"data": "grüße\n"}) == {"bytes_written": 8}
    raw = {"data": [0, 255, 10], "close": True}
    assert await asking.data(agent, "write_stdin", raw) == {"bytes_written": 3}
    await asking.end(agent)
    data = await asking.data(agent, "read_stdout", {"encoding": "bytes"})
    assert bytes(data["data"]) == "grüße\n".encode() + b"\0\xff\n"


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        "text",
        {"data": 5},
        {"data": [256]},
        {"data": [True]},
        {"data": ["a"]},
        {"data": "x", "close": 1},
    ],
)
async def test_write_with_a_broken_payload_is_invalid(asking: Peer, payload: Any) -> None:
    agent = await asking.spawn("exec cat")
    response = await asking.control(agent, "write_stdin", payload)
    assert (response.error or "").startswith("invalid: ")


async def test_reads_share_a_cursor_and_offsets_do_not_move_it(asking: Peer) -> None:
    agent = await asking.spawn("printf 0123456789")
    await asking.end(agent)
    first = await asking.data(agent, "read_stdout", {"max_bytes": 4})
    assert base64.b64decode(first["data"]) == b"0123"
    assert (first["offset"], first["next_offset"], first["eof"]) == (0, 4, False)
    inside = await asking.data(
        agent, "read_stdout", {"offset": 2, "max_bytes": 3, "encoding": "text"}
    )
    assert (inside["data"], inside["bytes"]) == ("234", 3)
    rest = await asking.data(agent, "read_stdout", {"encoding": "text"})
    assert (rest["data"], rest["offset"], rest["eof"]) == ("456789", 4, True)
    nothing = await asking.data(agent, "read_stdout")
    assert (nothing["data"], nothing["bytes"], nothing["eof"]) == (None, 0, True)


async def test_read_waits_for_output_and_for_the_end(asking: Peer) -> None:
    agent = await asking.spawn("read line; echo $line; read line")
    waiting = await asking.send(command_of(agent.id, "read_stdout", {"wait_secs": 9}))
    await asking.data(agent, "write_stdin", {"data": "now\n"})
    assert base64.b64decode((await asking.reply(waiting)).data["data"]) == b"now\n"
    waiting = await asking.send(command_of(agent.id, "read_stdout", {"wait_secs": 9}))
    await asking.data(agent, "write_stdin", {"close": True})
    data = (await asking.reply(waiting)).data
    assert (data["data"], data["eof"]) == (None, True)


async def test_read_of_text_never_cuts_a_character(asking: Peer) -> None:
    agent = await asking.spawn(r"printf 'a\303'; read x; printf '\244\377'")
    first = await asking.data(agent, "read_stdout", {"wait_secs": 5, "encoding": "text"})
    assert (first["data"], first["next_offset"]) == ("a", 1)
    await asking.data(agent, "write_stdin", {"data": "\n"})
    await asking.end(agent)
    rest = await asking.data(agent, "read_stdout", {"encoding": "text"})
    assert (rest["data"], rest["eof"]) == ("ä\ufffd", True)


@pytest.mark.parametrize(
    "payload",
    [
        {"offset": -1},
        {"offset": 1.5},
        {"max_bytes": 0},
        {"wait_secs": -1},
        {"encoding": "rot13"},
        [1],
    ],
)
async def test_read_with_a_broken_payload_is_invalid(asking: Peer, payload: Any) -> None:
    agent = await asking.spawn("exec sleep 60")
    response = await asking.control(agent, "read_stdout", payload)
    assert (response.error or "").startswith("invalid: ")


@pytest.mark.parametrize("name", ["SIGUSR1", "USR1", "usr1", int(signal.SIGUSR1)])
async def test_signal_by_name_or_number_arrives(asking: Peer, name: str | int) -> None:
    agent = await asking.spawn(
        "trap 'echo got; exit 4' USR1; echo ready; while :; do sleep 0.01; done"
    )
    await asking.data(agent, "read_stdout", {"wait_secs": 5})
    assert await asking.data(agent, "signal", {"signal": name}) == {"signal_sent": "SIGUSR1"}
    assert (await asking.end(agent))["exit_code"] == 4


async def test_signal_that_was_asked_for_and_ends_is_no_failure(asking: Peer) -> None:
    agent = await asking.spawn("exec sleep 60")
    await asking.data(agent, "signal", {"signal": "SIGINT"})
    data = await asking.end(agent)
    assert (data["status"], data["signal"]) == ("terminated", signal.SIGINT)


async def test_signals_that_stop_and_wake_change_the_status(asking: Peer) -> None:
    agent = await asking.spawn("exec sleep 60")
    stopped = await asking.control(agent, "signal", {"signal": "STOP"})
    assert stopped.status is AgentStatus.PAUSED
    woken = await asking.control(agent, "signal", {"signal": "CONT"})
    assert woken.status is AgentStatus.RUNNING


@pytest.mark.parametrize("payload", [None, {"signal": "SIGNONE"}, {"signal": 0}, {"signal": 999}])
async def test_unknown_signal_is_invalid(asking: Peer, payload: Any) -> None:
    agent = await asking.spawn("exec sleep 60")
    response = await asking.control(agent, "signal", payload)
    assert (response.error or "").startswith("invalid: ")


async def batch(asking: Peer, agents: list[Any], command: str, **fields: Any) -> Any:
    return await asking.ask(batch_of(agents, command, **fields))


async def test_batch_gives_each_result_in_the_order_asked(asking: Peer) -> None:
    agents = [(await asking.spawn("exec sleep 60")).id for _ in range(5)]
    asked = [agents[0], NOBODY, *agents[1:]]
    response = await batch(asking, asked, "pause")
    assert [result.agent_id for result in response.results] == asked
    assert [result.success for result in response.results] == [True, False, True, True, True, True]
    assert (response.success, response.successful, response.failed) == (False, 5, 1)
    assert response.results[0].status is AgentStatus.PAUSED
    assert response.results[1].error.startswith("not_found: ")
    killed = await batch(asking, agents, "kill")
    assert (killed.success, killed.successful) == (True, 5)


async def test_batch_signal_reaches_those_that_live_and_says_why_not_of_the_others(
    asking: Peer,
) -> None:
    script = "trap 'echo got; exit 0' USR1; echo ready; while :; do sleep 0.01; done"
    agents = [await asking.spawn(script) for _ in range(3)]
    for agent in agents:
        await asking.data(agent, "read_stdout", {"wait_secs": 5})
    ended = await asking.spawn("true")
    await asking.end(ended)
    asked = [agents[0].id, NOBODY, agents[1].id, ended.id, agents[2].id]
    response = await batch(asking, asked, "signal", payload={"signal": "USR1"})
    assert [result.agent_id for result in response.results] == asked
    assert [result.success for result in response.results] == [True, False, True, False, True]
    assert (response.success, response.successful, response.failed) == (False, 3, 2)
    assert response.results[1].error.startswith("not_found: ")
    assert response.results[3].error.startswith("state: cannot signal: the agent has ended")
    assert response.results[3].status is AgentStatus.COMPLETED
    for agent in agents:
        assert await asking.read_to_end(agent) == "ready\ngot\n"


async def test_batch_signal_reaches_more_agents_than_the_keeper_is_asked_for_at_once(
    asking: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("descartes_fast.server.together._AT_ONCE", 2)
    agents = [await asking.spawn("exec sleep 60") for _ in range(5)]
    asked = [NOBODY, *(agent.id for agent in agents)]
    response = await batch(asking, asked, "signal", payload={"signal": "TERM"})
    assert [result.success for result in response.results] == [False] + [True] * 5
    for agent in agents:
        assert (await asking.end(agent))["signal"] == signal.SIGTERM


async def test_batch_get_status_tells_each_status(asking: Peer) -> None:
    running, paused = [await asking.spawn("exec sleep 60") for _ in range(2)]
    await asking.data(paused, "pause")
    response = await batch(asking, [running.id, NOBODY, paused.id], "get_status")
    statuses = [result.status for result in response.results]
    assert statuses == [AgentStatus.RUNNING, None, AgentStatus.PAUSED]
    assert (response.successful, response.failed) == (2, 1)


async def test_batch_that_fails_fast_says_what_it_left_out(asking: Peer) -> None:
    agent = await asking.spawn("exec sleep 60")
    unknown = [uuid.uuid4() for _ in range(200)]
    response = await batch(asking, [*unknown, agent.id], "stop", fail_fast=True)
    assert response.failed == 201
    assert response.results[-1].error.startswith("state: not tried")
    assert (await asking.data(agent, "get_status"))["status"] == "running"


async def test_batch_of_nobody_succeeds_and_one_with_data_is_refused(asking: Peer) -> None:
    agent = await asking.spawn("echo precious; exec sleep 60")
    nobody = await batch(asking, [], "stop")
    assert (nobody.success, nobody.results) == (True, ())
    reading = await batch(asking, [agent.id], "read_stdout")
    assert reading.results[0].error.startswith("invalid: ")
    data = await asking.data(agent, "read_stdout", {"wait_secs": 5, "encoding": "text"})
    assert data["data"] == "precious\n"


async def test_health_tells_who_is_there(server: ZmqAgentServer, asking: Peer) -> None:
    await asking.spawn("exec sleep 60")
    for _ in range(2):  # asked of the keeper, then remembered
        response = await asking.ask(HealthCheckRequest(request_id=new_id()))
        assert response.healthy
        assert response.active_agents == 1
        metadata = response.metadata
        assert metadata["server_id"] == server.server_id
        assert metadata["endpoint"] == server.endpoint
        assert metadata["pub_endpoint"] == server.pub_endpoint
        assert metadata["features"] == "idempotent,offsets,snapshot"
        assert metadata["max_agents"] == "1000"
        assert "reason" not in metadata
    assert server.statistics().health_checks == 2


@pytest.mark.parametrize("replay_bytes", [0, 1000])
async def test_server_without_a_memory_of_replies_does_not_claim_one(
    start_server: StartServer, replay_bytes: int
) -> None:
    server = await start_server(replay_bytes=replay_bytes)
    async with peer(server.endpoint) as asking:
        response = await asking.ask(HealthCheckRequest(request_id=new_id()))
    assert ("idempotent" in response.metadata["features"]) is (replay_bytes > 0)


async def test_repeat_of_a_request_is_answered_and_not_done_again(
    server: ZmqAgentServer, asking: Peer
) -> None:
    agent = await asking.spawn("exec cat")
    write = command_of(agent.id, "write_stdin", {"data": "once\n"})
    assert await asking.ask(write) == await asking.ask(write)
    read = command_of(agent.id, "read_stdout", {"wait_secs": 5, "encoding": "text"})
    first = await asking.ask(read)
    assert first.data["data"] == "once\n"
    assert await asking.ask(read) == first
    await asking.data(agent, "write_stdin", {"close": True})
    assert await asking.read_to_end(agent) == "once\n"
    assert server.statistics().replayed == 2


async def state_of(pid: int, wanted: str) -> bool:
    """Wait until a process is in a state of proc(5)."""
    async with asyncio.timeout(5):
        while process_state(pid) != wanted:  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0.005)
    return True


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
