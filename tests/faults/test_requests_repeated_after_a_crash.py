"""A server crashes while it carries a request out; the same bytes are sent to the next one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import zmq

from descartes_fast import (
    AgentConfig,
    AgentStatus,
    BatchControlCommand,
    ControlCommand,
    ControlCommandType,
    CustomActionRequest,
    ListAgentsRequest,
    SpawnRequest,
    deserialize_zmq_message,
    serialize_zmq_message,
)
from faults.restarts import RestartableServer, restartable_server
from raw_peers import batch_of

pytestmark = pytest.mark.leaves_orphans

_CRASHING = Path(__file__).parent / "crashing"
_PYTHON_PATH = [path for path in [os.environ.get("PYTHONPATH")] if path]
_ANSWER_SECS = 20.0

# Done and not stored; stored and not sent.
AFTER_IT_WAS_DONE = pytest.mark.parametrize("point", ["reply", "answer"])
# Done and not answered; about to be stored, and answered perhaps; stored, and answered perhaps.
AFTER_A_SIGNAL = pytest.mark.parametrize("point", ["reply", "store", "answer"])


class Crashing:
    """A server that will crash at a point of the first request that is sent to it for that."""

    def __init__(self, server: RestartableServer) -> None:
        self.server = server
        self.folder = server.folder
        self.last_answer: bytes | None = None
        """What the server answered before it crashed, if it did."""

    def crash(self, request: Any, point: str, *, answers: bool = False) -> bytes:
        """Send a request to a server that crashes at ``point``; return the request's bytes.

        Unless it ``answers`` perhaps, it must not have answered by then.
        """
        self.server.kill()
        self.start(point)
        body = self.send(request)
        assert answers or self.last_answer is None, "there is an answer already"
        self.start()
        return body

    def send(self, request: Any) -> bytes:
        """Send a request of which the server crashes; return the request's bytes."""
        body = serialize_zmq_message(request)
        with self._socket() as asking:
            asking.send_multipart([b"", body])
            assert self.server.process is not None
            self.server.process.wait(_ANSWER_SECS)
            self.last_answer = asking.recv_multipart()[-1] if asking.poll(50) else None
        assert (self.folder / "crashed").exists(), self.server.words()
        return body

    def start(self, point: str = "none", *, answers: bool = True) -> None:
        environment = (
            f"PYTHONPATH={os.pathsep.join([str(_CRASHING), *_PYTHON_PATH])}",
            f"JOURNAL={self.server.state / 'journal.sqlite'}",
            f"CRASHED={self.folder / 'crashed'}",
            f"CRASH_AT={point}",
        )
        start = self.server.start if answers else self.server.launch
        start(wrapper=("env", *environment))

    def answer(self, body: bytes) -> bytes:
        """Send a request once; return the bytes of its answer."""
        with self._socket() as asking:
            asking.send_multipart([b"", body])
            assert asking.poll(int(_ANSWER_SECS * 1000)), self.server.words()
            answer: bytes = asking.recv_multipart()[-1]
            return answer

    def ask(self, request: Any) -> Any:
        return deserialize_zmq_message(self.answer(serialize_zmq_message(request)))

    def spawn(self, task: str) -> UUID:
        response = self.ask(spawn_request(task))
        assert response.success, response.error
        agent_id: UUID = response.agent_info.id
        return agent_id

    @contextmanager
    def _socket(self) -> Iterator[Any]:
        with zmq.Context() as context, context.socket(zmq.DEALER) as asking:
            asking.set(zmq.LINGER, 0)
            asking.connect(self.server.endpoint)
            yield asking


@pytest.fixture
def crashing() -> Iterator[Crashing]:
    with restartable_server(started=False) as server:
        crashing = Crashing(server)
        crashing.start()
        yield crashing


@pytest.mark.parametrize("point", ["launch", "reply", "answer"])
def test_spawn_is_one_agent(crashing: Crashing, point: str) -> None:
    started = crashing.folder / "started"
    body = crashing.crash(spawn_request(f"echo started >> {started}; exec sleep 1000"), point)
    first = crashing.answer(body)
    response: Any = deserialize_zmq_message(first)
    assert response.success, response.error
    wait_for(started.exists)
    assert crashing.answer(body) == first
    assert crashing.server.agents() == 1
    assert started.read_text() == "started\n"
    status = crashing.ask(control(response.agent_info.id, "get_status"))
    assert status.data["status"] == "running"


@pytest.mark.parametrize("again", [False, True])
def test_spawn_that_was_lost_with_the_keeper_is_not_done_again(
    crashing: Crashing, again: bool
) -> None:
    """``again``: the next server crashes too, when it has started a keeper."""
    started, server = crashing.folder / "started", crashing.server
    request = spawn_request(f"echo $$ >> {started}; exec sleep 1000")
    server.kill()
    crashing.start("launched")
    body = crashing.send(request)
    wait_for(lambda: started.exists() and started.read_text().endswith("\n"))
    if again:
        (crashing.folder / "crashed").unlink()
        crashing.start("take over", answers=False)
        assert server.process is not None
        server.process.wait(_ANSWER_SECS)
    crashing.start()
    wait_for(lambda: not Path(f"/proc/{int(started.read_text())}/cwd").exists())
    first = crashing.answer(body)
    response: Any = deserialize_zmq_message(first)
    assert not response.success
    assert "it may have run" in response.error
    assert crashing.answer(body) == first
    (agent,) = crashing.ask(ListAgentsRequest(request_id="list")).agents
    assert agent.status is AgentStatus.FAILED
    assert started.read_text().count("\n") == 1


def test_stop_that_the_keeper_has_not_heard_of_is_carried_out(crashing: Crashing) -> None:
    agent = crashing.spawn("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    wait_for(lambda: crashing.ask(control(agent, "get_status")).data["stdout_bytes"] > 0)
    crashing.crash(control(agent, "stop", {"grace_secs": 0.2}), "stop")
    wait_for(lambda: crashing.ask(control(agent, "get_status")).data["status"] == "terminated")
    assert crashing.ask(control(agent, "get_status")).data["signal"] == 9


def test_pause_that_was_begun_is_carried_out(crashing: Crashing) -> None:
    agent = crashing.spawn("while :; do echo more; sleep 0.02; done")
    crashing.crash(control(agent, "pause", {"mode": "forced"}), "pause")
    status = crashing.ask(control(agent, "get_status")).data
    assert status["status"] == "paused"
    assert Path(f"/proc/{status['pid']}/stat").read_text().rpartition(") ")[2][0] == "T"
    crashing.ask(control(agent, "resume"))
    assert crashing.ask(control(agent, "get_status")).data["status"] == "running"


def test_end_by_a_signal_that_was_sent_before_a_crash_was_asked_for(crashing: Crashing) -> None:
    go = crashing.folder / "go"
    agent = crashing.spawn(
        f"trap 'while ! [ -e {go} ]; do sleep 0.01; done; trap - TERM; kill -TERM $$' TERM;"
        "echo ready; while :; do sleep 0.01; done"
    )
    wait_for(lambda: crashing.ask(control(agent, "get_status")).data["stdout_bytes"] > 0)
    assert crashing.ask(control(agent, "signal", {"signal": "TERM"})).success
    crashing.server.kill()
    crashing.start()
    go.touch()
    wait_for(lambda: crashing.ask(control(agent, "get_status")).data["status"] == "terminated")


@AFTER_IT_WAS_DONE
def test_write_arrives_once(crashing: Crashing, point: str) -> None:
    agent = crashing.spawn("exec cat")
    body = crashing.crash(control(agent, "write_stdin", {"data": "once\n"}), point)
    first: Any = deserialize_zmq_message(crashing.answer(body))
    assert first.success, first.error
    assert first.data == {"bytes_written": 5}
    crashing.answer(body)
    crashing.ask(control(agent, "write_stdin", {"data": "end\n", "close": True}))
    assert everything_of(crashing, agent) == "once\nend\n"


@AFTER_IT_WAS_DONE
def test_write_to_an_agent_that_ends_of_it_has_been_done(crashing: Crashing, point: str) -> None:
    agent = crashing.spawn("read line; echo $line")
    body = crashing.crash(control(agent, "write_stdin", {"data": "bye\n"}), point)
    wait_for(lambda: crashing.ask(control(agent, "get_status")).data["status"] == "completed")
    first: Any = deserialize_zmq_message(crashing.answer(body))
    assert first.success, first.error


@AFTER_A_SIGNAL
def test_signal_arrives_once(crashing: Crashing, point: str) -> None:
    seen = crashing.folder / "seen"
    agent = crashing.spawn(
        f"trap 'echo signal >> {seen}' USR1; trap 'echo last >> {seen}' USR2;"
        "echo ready; while :; do sleep 0.01; done"
    )
    wait_for(lambda: crashing.ask(control(agent, "get_status")).data["stdout_bytes"] > 0)
    body = crashing.crash(control(agent, "signal", {"signal": "USR1"}), point, answers=True)
    wait_for(seen.exists)
    answer = crashing.answer(body)
    assert crashing.last_answer in (None, answer)
    first: Any = deserialize_zmq_message(answer)
    assert first.success, first.error
    crashing.ask(control(agent, "signal", {"signal": "USR2"}))
    wait_for(lambda: "last" in seen.read_text())
    assert seen.read_text() == "signal\nlast\n"


def test_signal_that_was_answered_and_not_stored_arrives_once(crashing: Crashing) -> None:
    agent = crashing.spawn(
        "trap 'echo signal' URG; trap 'echo last; exit' WINCH;"
        "echo ready; while :; do sleep 0.01; done"
    )
    wait_for(lambda: crashing.ask(control(agent, "get_status")).data["stdout_bytes"] > 0)
    # By default it is ignored: there is nothing else to be stored that the answer waits for.
    body = crashing.crash(control(agent, "signal", {"signal": "URG"}), "store", answers=True)
    assert crashing.last_answer is not None
    assert crashing.answer(body) == crashing.last_answer
    wait_for(lambda: crashing.ask(control(agent, "get_status")).data["stdout_bytes"] >= 13)
    # Its number is the higher one: of two that wait the shell takes the other first.
    crashing.ask(control(agent, "signal", {"signal": "WINCH"}))
    assert everything_of(crashing, agent) == "ready\nsignal\nlast\n"


@AFTER_IT_WAS_DONE
def test_read_takes_what_follows_the_last_answer(crashing: Crashing, point: str) -> None:
    agent = crashing.spawn("echo one two three")
    wait_for(lambda: crashing.ask(control(agent, "get_status")).data["status"] == "completed")
    asked = {"max_bytes": 4, "encoding": "text"}
    assert crashing.ask(control(agent, "read_stdout", asked)).data["data"] == "one "
    body = crashing.crash(control(agent, "read_stdout", asked), point)
    first = crashing.answer(body)
    response: Any = deserialize_zmq_message(first)
    assert response.data["data"] == "two "
    assert crashing.answer(body) == first
    rest = crashing.ask(control(agent, "read_stdout", {"encoding": "text"}))
    assert rest.data["data"] == "three\n"


@pytest.mark.parametrize("form", ["request", "command"])
def test_action_without_an_outcome_is_not_done_again(crashing: Crashing, form: str) -> None:
    agent, notes = crashing.spawn("exec sleep 1000"), str(crashing.folder / "notes")
    body = crashing.crash(action(agent, notes, form), "reply")
    first: Any = deserialize_zmq_message(crashing.answer(body))
    assert not first.success
    assert "may have been done" in first.error
    assert deserialize_zmq_message(crashing.answer(body)) == first
    crashing.server.kill()
    crashing.start()
    assert deserialize_zmq_message(crashing.answer(body)) == first
    assert Path(notes).read_text() == "done\n"


def test_action_with_an_outcome_has_it(crashing: Crashing) -> None:
    agent, notes = crashing.spawn("exec sleep 1000"), str(crashing.folder / "notes")
    body = crashing.crash(action(agent, notes, "request"), "answer")
    first: Any = deserialize_zmq_message(crashing.answer(body))
    assert first.success, first.error
    assert first.data == "noted"
    assert Path(notes).read_text() == "done\n"


@AFTER_IT_WAS_DONE
def test_batch_reaches_each_agent_once(crashing: Crashing, point: str) -> None:
    agents = [crashing.spawn("exec cat") for _ in range(3)]
    request = BatchControlCommand(
        request_id="a batch",
        agent_ids=[*agents, agents[0]],
        command_type=ControlCommandType.WRITE_STDIN,
        payload={"data": "once\n"},
    )
    body = crashing.crash(request, point)
    first: Any = deserialize_zmq_message(crashing.answer(body))
    assert first.success, first
    for agent in agents:
        crashing.ask(control(agent, "write_stdin", {"close": True}))
    texts = [everything_of(crashing, agent) for agent in agents]
    assert texts == ["once\nonce\n", "once\n", "once\n"]  # the first one was given twice


@AFTER_A_SIGNAL
def test_batch_signal_reaches_each_agent_once(crashing: Crashing, point: str) -> None:
    seen = [crashing.folder / f"seen {number}" for number in range(3)]
    agents = [
        crashing.spawn(
            f"trap 'echo signal >> \"{file}\"' USR1; trap 'echo last >> \"{file}\"' USR2;"
            "echo ready; while :; do sleep 0.01; done"
        )
        for file in seen
    ]
    for agent in agents:
        crashing.ask(control(agent, "read_stdout", {"wait_secs": 5}))
    body = crashing.crash(batch_signal(agents, "USR1"), point, answers=True)
    for file in seen:
        wait_for(file.exists)
    # One that has ended since was reached while it lived.
    crashing.ask(control(agents[2], "kill"))
    wait_for(lambda: crashing.ask(control(agents[2], "get_status")).data["ended_at"] is not None)
    first: Any = deserialize_zmq_message(crashing.answer(body))
    assert first.success, first
    assert crashing.ask(batch_signal(agents[:2], "USR2")).success
    wait_for(lambda: all("last" in file.read_text() for file in seen[:2]))
    assert [file.read_text() for file in seen] == ["signal\nlast\n"] * 2 + ["signal\n"]


@pytest.mark.parametrize(
    ("command", "point"),
    [
        ("stop", "stop"),
        ("stop", "reply"),
        ("stop", "answer"),
        ("kill", "reply"),
        ("kill", "answer"),
    ],
)
def test_agent_that_was_ended_is_called_terminated(
    crashing: Crashing, command: str, point: str
) -> None:
    agent = crashing.spawn("exec sleep 1000")
    body = crashing.crash(control(agent, command), point)
    response: Any = deserialize_zmq_message(crashing.answer(body))
    assert response.success, response.error
    wait_for(lambda: crashing.ask(control(agent, "get_status")).data["status"] == "terminated")


def spawn_request(task: str) -> SpawnRequest:
    config = AgentConfig(name="agent", model_backend="sh", task=task)
    return SpawnRequest(request_id=f"spawn {time.monotonic_ns()}", config=config)


def control(agent_id: UUID, command: str, payload: Any = None) -> ControlCommand:
    return ControlCommand(
        request_id=f"{command} {time.monotonic_ns()}",
        agent_id=agent_id,
        command_type=ControlCommandType(command),
        payload=payload,
    )


def batch_signal(agents: list[UUID], name: str) -> BatchControlCommand:
    return batch_of(agents, "signal", {"signal": name})


def action(agent_id: UUID, notes: str, form: str) -> CustomActionRequest | ControlCommand:
    if form == "command":
        return control(agent_id, "custom_action", {"action": "note", "params": notes})
    return CustomActionRequest(request_id="note it", agent_id=agent_id, action="note", params=notes)


def everything_of(crashing: Crashing, agent: UUID) -> str:
    """Return an agent's stdout when it has ended."""
    wait_for(lambda: crashing.ask(control(agent, "get_status")).data["ended_at"] is not None)
    asked = control(agent, "read_stdout", {"offset": 0, "encoding": "text"})
    text: str = crashing.ask(asked).data["data"]
    return text


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _ANSWER_SECS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)
