"""A server that does what a test tells it to, right or wrong: plain sockets in a thread."""

from __future__ import annotations

import asyncio
import base64
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self
from uuid import UUID, uuid4

import zmq

from descartes_fast import (
    AgentInfo,
    AgentStatus,
    CommandResponse,
    ControlCommand,
    ControlCommandType,
    HealthCheckRequest,
    HealthCheckResponse,
    ListAgentsRequest,
    ListAgentsResponse,
    LogStreamMessage,
    LogStreamType,
    SpawnRequest,
    SpawnResponse,
    StatusUpdate,
    StatusUpdateType,
    deserialize_zmq_message,
    serialize_zmq_message,
)

FEATURES = "idempotent,offsets,snapshot"
READS = {
    ControlCommandType.READ_STDOUT: LogStreamType.STDOUT,
    ControlCommandType.READ_STDERR: LogStreamType.STDERR,
}

Answer = Any
"""A message, bytes, a list of either, or ``None`` for silence."""


class ScriptedAgent:
    """An agent that exists only on paper: its status and its output."""

    def __init__(self, status: AgentStatus = AgentStatus.RUNNING) -> None:
        self.id = uuid4()
        self.status = status
        self.seq = 2
        self.exit_code: int | None = None
        self.output = {LogStreamType.STDOUT: b"", LogStreamType.STDERR: b""}
        self.trimmed = {LogStreamType.STDOUT: 0, LogStreamType.STDERR: 0}
        self.cursor = 0

    def info(self) -> AgentInfo:
        return AgentInfo(
            id=self.id,
            name="scripted",
            status=self.status,
            model_backend="none",
            started_at=time.time_ns(),
            task="",
        )

    def lengths(self) -> dict[str, int]:
        return {f"{stream.value}_bytes": len(data) for stream, data in self.output.items()}


class ScriptedPeer:
    """A ROUTER and an XPUB in a thread, with a handler that a test may replace.

    ``handler`` gets each request before the built-in answers; what it returns other than
    ``NotImplemented`` is sent. ``requests`` holds all requests in their order.
    """

    def __init__(
        self,
        *,
        features: str | None = FEATURES,
        server_id: str = "scripted",
        version: str = "1.0.0",
        port: int = 0,
        announced_host: str = "127.0.0.1",
    ) -> None:
        self.features = features
        self.server_id = server_id
        self.journal_id = "first"
        self.version = version
        self.announced_host = announced_host
        self.announced = ""
        self.handler: Callable[[Any], Answer] = lambda request: NotImplemented
        self.echoes = True
        self.echoed_id: str | None = None
        self.openings = 0
        self.requests: list[Any] = []
        self.identities: list[bytes] = []
        self.subscribed: list[bytes] = []
        self.agents: dict[UUID, ScriptedAgent] = {}
        self._context = zmq.Context()
        self._port = port
        self._pub_port = 0
        self._lock = threading.Lock()
        self._outbox: list[bytes] = []
        self._jobs: list[Callable[[], None]] = []
        self._stop = threading.Event()
        self._open()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self._port}"

    @property
    def pub_endpoint(self) -> str:
        return self.announced or f"tcp://{self.announced_host}:{self._pub_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._close()
        self._context.term()

    def add(self, agent: ScriptedAgent) -> ScriptedAgent:
        self.agents[agent.id] = agent
        return agent

    def publish(self, topic: bytes, body: bytes) -> None:
        with self._lock:
            self._outbox.append(topic + b"\0" + body)

    def publish_log(
        self, agent: ScriptedAgent, sequence: int, data: bytes, stream: str = "stdout"
    ) -> None:
        message = LogStreamMessage(
            agent_id=agent.id, stream_type=LogStreamType(stream), data=data, sequence=sequence
        )
        self.publish(str(agent.id).encode(), serialize_zmq_message(message))

    def write(
        self, agent: ScriptedAgent, data: bytes, stream: str = "stdout", *, lose: bool = False
    ) -> None:
        """Let an agent write, and publish it unless it is to be lost."""
        kind = LogStreamType(stream)
        sequence = len(agent.output[kind])
        agent.output[kind] += data
        if not lose:
            self.publish_log(agent, sequence, data, stream)

    def change(
        self,
        agent: ScriptedAgent,
        status: AgentStatus,
        *,
        exit_code: int | None = None,
        lose: bool = False,
    ) -> None:
        """Change an agent's status and publish it unless it is to be lost."""
        agent.status = status
        agent.seq += 1
        agent.exit_code = exit_code
        kinds = {
            AgentStatus.COMPLETED: StatusUpdateType.COMPLETED,
            AgentStatus.FAILED: StatusUpdateType.ERROR,
            AgentStatus.TERMINATED: StatusUpdateType.TERMINATED,
        }
        data: dict[str, Any] = {"seq": agent.seq}
        if status.is_terminal:
            data |= {"exit_code": exit_code, "signal": None, **agent.lengths()}
        update = StatusUpdate(
            agent_id=agent.id,
            update_type=kinds.get(status, StatusUpdateType.STATUS_CHANGED),
            status=status,
            data=data,
        )
        if not lose:
            self.publish(b"status/" + str(agent.id).encode(), serialize_zmq_message(update))

    def vanish(self, *, for_secs: float = 0.0) -> None:
        """Close both sockets and open them again on the same ports."""

        def job() -> None:
            self._close()
            time.sleep(for_secs)
            self._open()

        with self._lock:
            self._jobs.append(job)

    def count(self, kind: type) -> int:
        return sum(isinstance(request, kind) for request in self.requests)

    def _open(self) -> None:
        self._router = self._context.socket(zmq.ROUTER)
        self._pub = self._context.socket(zmq.XPUB)
        self._pub.set(zmq.XPUB_VERBOSE, 1)
        self._port = _bind(self._router, self._port)
        self._pub_port = _bind(self._pub, self._pub_port)
        self.openings += 1

    def _close(self) -> None:
        self._router.close(linger=0)
        self._pub.close(linger=0)

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                outbox, self._outbox = self._outbox, []
                jobs, self._jobs = self._jobs, []
            for body in outbox:
                self._pub.send(body)
            for job in jobs:
                job()
            poller = zmq.Poller()
            poller.register(self._router, zmq.POLLIN)
            poller.register(self._pub, zmq.POLLIN)
            ready = dict(poller.poll(2))
            if self._pub in ready:
                self._subscription(self._pub.recv())
            if self._router in ready:
                self._request(self._router.recv_multipart())

    def _subscription(self, frame: bytes) -> None:
        topic = frame[1:]
        if frame[:1] == b"\1":
            self.subscribed.append(topic)
            if topic.startswith(b"sync/") and self.echoes:
                echoed_id = self.server_id if self.echoed_id is None else self.echoed_id
                self._pub.send(topic + b"\0" + echoed_id.encode())

    def _request(self, frames: list[bytes]) -> None:
        *envelope, body = frames
        request = deserialize_zmq_message(body)
        self.requests.append(request)
        self.identities.append(envelope[0])
        answer = self.handler(request)
        if answer is NotImplemented:
            answer = self.answer(request)
        answers: Iterable[Any] = answer if isinstance(answer, list) else [answer]
        for each in answers:
            if each is not None:
                reply = each if isinstance(each, bytes) else serialize_zmq_message(each)
                self._router.send_multipart([*envelope, reply])

    def answer(self, request: Any) -> Answer:
        """Answer as a well-behaved server would."""
        if isinstance(request, HealthCheckRequest):
            metadata = {
                "server_id": self.server_id,
                "journal_id": self.journal_id,
                "pub_endpoint": self.pub_endpoint,
            }
            if self.features is not None:
                metadata["features"] = self.features
            return HealthCheckResponse(
                request_id=request.request_id,
                healthy=True,
                protocol_version=self.version,
                metadata=metadata,
            )
        if isinstance(request, ListAgentsRequest):
            return ListAgentsResponse(
                request_id=request.request_id,
                success=True,
                agents=[agent.info() for agent in self.agents.values()],
            )
        if isinstance(request, SpawnRequest):
            agent = self.add(ScriptedAgent())
            return SpawnResponse(
                request_id=request.request_id, success=True, agent_info=agent.info()
            )
        if isinstance(request, ControlCommand):
            return self._control(request)
        return None

    def _control(self, request: ControlCommand) -> Answer:
        agent = self.agents.get(request.agent_id)
        if agent is None:
            return refuse(request, "not_found: no such agent")
        payload = request.payload or {}
        data: dict[str, Any] = {}
        if request.command_type == ControlCommandType.GET_STATUS:
            data = {
                "seq": agent.seq,
                "status": agent.status.value,
                "exit_code": agent.exit_code,
                **agent.lengths(),
            }
        elif request.command_type in READS:
            data = self._read(agent, READS[request.command_type], payload)
        return consent(request, data, agent.status)

    def _read(
        self, agent: ScriptedAgent, stream: LogStreamType, payload: dict[str, Any]
    ) -> dict[str, Any]:
        output = agent.output[stream]
        offset = payload.get("offset")
        start = max(agent.cursor if offset is None else offset, agent.trimmed[stream])
        data = output[start : start + payload.get("max_bytes", 65536)]
        if offset is None:
            agent.cursor = start + len(data)
        return {
            "data": base64.b64encode(data).decode() if data else None,
            "encoding": "base64",
            "bytes": len(data),
            "offset": start,
            "next_offset": start + len(data),
            "eof": False,
        }


def _bind(socket: zmq.Socket[bytes], port: int) -> int:
    """Bind to a port, or to a free one below those that connecting sockets are given.

    There a client that connects to nobody could meet itself (TCP's simultaneous open).
    """
    deadline = time.monotonic() + 5
    while True:
        tried = port or random.randrange(15_000, 32_000)
        try:
            socket.bind(f"tcp://127.0.0.1:{tried}")
        except zmq.ZMQError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return tried


async def until(condition: Callable[[], bool], timeout_secs: float = 5.0) -> None:
    """Wait for something that tells nobody when it happens, such as the peer's thread."""

    async def value() -> bool:
        return condition()

    await until_async(value, True, timeout_secs)


async def until_async(
    ask: Callable[[], Awaitable[Any]], expected: Any, timeout_secs: float = 5.0
) -> None:
    """Ask again and again, until the answer is the expected one."""
    async with asyncio.timeout(timeout_secs):
        while await ask() != expected:  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.005)


def consent(
    request: Any, data: Any = None, status: AgentStatus | None = AgentStatus.RUNNING
) -> CommandResponse:
    """Return a successful answer to a command."""
    return CommandResponse(
        request_id=request.request_id,
        agent_id=request.agent_id,
        success=True,
        status=status,
        data=data,
    )


def refuse(request: Any, error: str) -> CommandResponse:
    """Return a refusal of a command."""
    return CommandResponse(
        request_id=request.request_id, agent_id=request.agent_id, success=False, error=error
    )
