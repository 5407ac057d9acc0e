"""The keeper itself: the server's requests, and how it all ends."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from .agents import Agents
from .connection import Connection, peer_may_connect
from .loop import READ, Loop
from .protocol import VERSION, Refusal
from .trees import children, choose_trees

__all__ = ["Keeper"]

_START_SLICE_SECS = 0.003  # of starting processes in one turn; one takes about 0.6 ms
_FIRST_CONNECTION_SECS = 15.0
_END_GRACE_SECS = 2.0  # when the server is gone
_END_SECS = 10.0  # the keeper is gone after this, whatever hangs
_SWEEP_SECS = 2.0
_LAST_WORDS_SECS = 1.0

_Request = tuple[dict[str, Any], bytes]


class Keeper:
    """Serves one server until it lets go, then ends every agent and returns."""

    def __init__(
        self, listener: socket.socket, *, instance: str, agent_nofile: int | None = None
    ) -> None:
        self._loop = Loop()
        self._listener = listener
        self._instance = instance
        self._connection: Connection | None = None
        self._began_at = time.monotonic()
        self.agents = Agents(
            self._loop,
            choose_trees(instance),
            self._tell,
            self._is_congested,
            agent_nofile=agent_nofile,
        )
        self._starts: deque[_Request] = deque()
        self._starting: Counter[str] = Counter()
        self._given_up: set[str] = set()
        self._greeted = False
        self._end_request: Mapping[str, Any] | None = None
        self._end_by: float | None = None
        self._operations: dict[str, Callable[[dict[str, Any], bytes], Mapping[str, Any]]] = {
            "hello": self._hello,
            "launch": self._launch,
            "write": self._write,
            "signal": self._signal,
            "stop": self._stop,
            "kill": self._kill,
            "abandon": self._abandon,
            "release": self._release,
            "forget": self._forget,
            "limit_total": self._limit_total,
            "ping": self._ping,
        }

    def run(self, signals_fd: int) -> None:
        """Serve until the end. ``signals_fd`` brings the numbers of signals, one a byte."""
        self._loop.watch(self._listener.fileno(), READ, self._accept)
        self._loop.watch(signals_fd, READ, lambda: self._signals_came(signals_fd))
        self._loop.call_later(_FIRST_CONNECTION_SECS, self._check_first_connection)
        while not self._is_over():
            self._loop.turn()
            self.agents.after_turn()
            if self._connection is not None:
                self._connection.flush()
        _sweep()
        self._say_goodbye()
        self.agents.close()
        self._loop.close()

    def end(self, grace_secs: float) -> None:
        """Start nothing more, end all agents, then return from :meth:`run`."""
        if self._end_by is None:
            self._end_by = time.monotonic() + grace_secs + _END_SECS
            self._loop.call_later(grace_secs + _END_SECS, lambda: None)
            while self._starts:
                self._serve(*self._starts.popleft())
        self.agents.stop_all(grace_secs)

    def _is_over(self) -> bool:
        if self._end_by is None:
            return False
        return self.agents.live == 0 or time.monotonic() >= self._end_by

    def _say_goodbye(self) -> None:
        """Send what is left to be said, but wait for nobody."""
        connection = self._connection
        if connection is None:
            return
        if self._end_request is not None:
            connection.send({"re": self._end_request["id"]})
        give_up_at = time.monotonic() + _LAST_WORDS_SECS
        connection.flush()
        while connection.has_unsent and time.monotonic() < give_up_at:
            time.sleep(0.005)
            connection.flush()
        connection.close()

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        if self._connection is not None or not peer_may_connect(peer):
            peer.close()
            return
        self._connection = Connection(self._loop, peer, self._take, self._server_is_gone)

    def _check_first_connection(self) -> None:
        if self._connection is None:
            self.end(0)

    def _server_is_gone(self) -> None:
        """The connection broke. A keeper that outlives its server would wait here."""
        self.end(_END_GRACE_SECS)

    def _signals_came(self, fd: int) -> None:
        numbers = os.read(fd, 4096)
        if signal.SIGTERM in numbers:
            self.end(_END_GRACE_SECS)
        if signal.SIGCHLD in numbers:
            self.agents.child_signalled()

    def _take(self, header: dict[str, Any], body: bytes) -> None:
        """Do a request at once, but queue starts, and what concerns a start that is queued."""
        agent_id = header.get("agent", "")
        if header.get("op") == "abandon" and agent_id in self._starting:
            self._given_up.add(agent_id)
        if header.get("op") == "launch" or agent_id in self._starting:
            self._starting[agent_id] += 1
            self._starts.append((header, body))
            if len(self._starts) == 1:
                self._loop.call_soon(self._start_some)
        else:
            self._serve(header, body)

    def _start_some(self) -> None:
        stop_at = time.monotonic() + _START_SLICE_SECS
        while self._starts:
            header, body = self._starts.popleft()
            agent_id = header["agent"]
            self._starting[agent_id] -= 1
            if not self._starting[agent_id]:
                del self._starting[agent_id]
            self._serve(header, body)
            if time.monotonic() >= stop_at:
                break
        if self._starts:
            self._loop.call_soon(self._start_some)

    def _serve(self, header: dict[str, Any], body: bytes) -> None:
        try:
            if header["op"] == "end":
                self._end_request = header
                self.end(header["grace_secs"])
                return
            if not self._greeted and header["op"] != "hello":
                raise Refusal("invalid", "the first request must be hello")
            reply = self._operations[header["op"]](header, body)
        except Refusal as refusal:
            reply = {"code": refusal.code, "words": refusal.words}
        except Exception as error:
            traceback.print_exc()
            reply = {"code": "internal", "words": f"the keeper failed: {error!r}"}
        if header.get("id") and self._connection is not None:
            self._connection.send({"re": header["id"], **reply})

    def _tell(self, event: Mapping[str, Any]) -> None:
        if self._connection is not None:
            self._connection.send(event)

    def _is_congested(self) -> bool:
        return self._connection is not None and self._connection.is_congested

    def _hello(self, header: dict[str, Any], _: bytes) -> Mapping[str, Any]:
        if header["version"] != VERSION:
            raise Refusal("unsupported", f"this keeper speaks version {VERSION} of the protocol")
        self._greeted = True
        return {"version": VERSION, "pid": os.getpid(), "instance": self._instance}

    def _launch(self, header: dict[str, Any], body: bytes) -> Mapping[str, Any]:
        if self._end_by is not None:
            raise Refusal("shutting_down", "the keeper is ending")
        if header["agent"] in self._given_up:
            raise Refusal("spawn_failed", "the launch was given up")
        return self.agents.start(header, body)

    def _write(self, header: dict[str, Any], body: bytes) -> Mapping[str, Any]:
        count = self.agents.write(header["agent"], body, close=header["close"], key=header["key"])
        return {"bytes": count}

    def _signal(self, header: dict[str, Any], _: bytes) -> Mapping[str, Any]:
        self.agents.signal(header["agent"], header["signal"], tree=header["tree"])
        return {}

    def _stop(self, header: dict[str, Any], _: bytes) -> Mapping[str, Any]:
        self.agents.stop(header["agent"], header["grace_secs"])
        return {}

    def _kill(self, header: dict[str, Any], _: bytes) -> Mapping[str, Any]:
        self.agents.kill(header["agent"])
        return {}

    def _abandon(self, header: dict[str, Any], _: bytes) -> Mapping[str, Any]:
        self._given_up.discard(header["agent"])
        self.agents.abandon(header["agent"])
        return {}

    def _release(self, header: dict[str, Any], _: bytes) -> Mapping[str, Any]:
        self.agents.release(header["agent"], header["stream"], header["offset"])
        return {}

    def _forget(self, header: dict[str, Any], _: bytes) -> Mapping[str, Any]:
        self.agents.forget(header["agent"], remove=header["remove"])
        return {}

    def _limit_total(self, header: dict[str, Any], _: bytes) -> Mapping[str, Any]:
        self.agents.limit_total(header["bytes"])
        return {}

    def _ping(self, header: dict[str, Any], _: bytes) -> Mapping[str, Any]:
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "agents": self.agents.live,
            "known": self.agents.known,
            "queued": len(self._starts),
            "open_fds": _open_fds(),
            "fd_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "kept_bytes": self.agents.budget.kept_bytes,
            "waiting_streams": self.agents.pump.waiting,
            "uptime_secs": time.monotonic() - self._began_at,
        }


def _open_fds() -> int:
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(directory)) - 1
        except OSError:
            continue
    return -1


def _sweep() -> None:
    """Kill and reap whatever the agents left behind that could not be told apart."""
    give_up_at = time.monotonic() + _SWEEP_SECS
    while time.monotonic() < give_up_at:
        left = children()
        if not left:
            return
        for pid in left:
            # Unreaped children: their ids are nobody else's.
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
        for pid in left:
            os.waitpid(pid, os.WNOHANG)
