"""The keeper itself: who its server is, and how it all ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from .agent import Agent
from .agents import Agents
from .connection import Connection, Descriptors
from .keys import KeyMemory
from .loop import READ, Loop
from .own_limits import OwnLimits
from .passing import close_all
from .peers import stands_against
from .place import Place
from .protocol import VERSION, Refusal
from .reception import Reception
from .renewal import renew, restored_agents, save_agents
from .requests import Answer, Requests, figures
from .start import Start
from .starts import Request, Starts
from .system import child_signals
from .trees import children, choose_trees

__all__ = ["Keeper"]

_FIRST_SERVER_SECS = 15.0
_NO_SERVER_SECS = 5.0  # with no agents either: then there is nothing to be kept
_MAX_GUESTS = 16
_END_GRACE_SECS = 2.0  # when nobody says how long
_END_SECS = 10.0  # the keeper is gone after this, whatever hangs
_SWEEP_SECS = 2.0
_CHILDREN_SECS = 0.02  # between two looks for what agents have left and has ended
_CHILDREN_SHARE = 50  # ... and at least so many times the processor time of one
_LAST_WORDS_SECS = 1.0

_Later = TypeVar("_Later", Start, Agent)


class Keeper:
    """Serves one server at a time, keeps its agents between two, and ends with the last."""

    def __init__(self, place: Place, *, instance: str, build: str, own_limits: OwnLimits) -> None:
        self._loop = Loop()
        self._place = place
        self._instance = instance
        self._build = build
        self._began_at = time.monotonic()
        self._server: Connection | None = None
        self._server_version = 0
        self._keeps = False
        self._guests: list[Connection] = []
        self._end_request: tuple[Connection, Mapping[str, Any]] | None = None
        self._end_by: float | None = None
        self._leave_at: float | None = None
        self._ends_are_left = False
        self._has_complained = False
        self._signals_fd = self._children_fd = -1
        self._own_limits = own_limits
        self._trees = choose_trees(instance)
        self._keys = KeyMemory()
        self.agents = Agents(
            self._loop, self._trees, self._tell, self._is_congested, self._own_limits
        )
        self._restored: list[Agent] = []
        self._requests = Requests(self.agents, self._keys)
        self._started: list[tuple[Request, Agent]] = []
        """Launches that are to be answered, with their agents."""
        self._starts = Starts(
            self._loop,
            self.agents.launcher,
            begin=self._begin_launch,
            finish=self._finish_launch,
            answer=self._answer_launches,
            serve=self._serve,
            abandon=self.agents.abandon,
        )
        self._reception = Reception(
            self._loop, place, self.agents.endings.is_agents, self._welcome, self._dismiss_guest
        )

    @property
    def has_agents(self) -> bool:
        """Whether there are agents of the keeper that this process was before."""
        return bool(self._restored)

    def run(self, signals_fd: int) -> None:
        """Serve until the end. ``signals_fd`` brings the numbers of signals, one a byte."""
        self._reception.open()
        self._reception.keep_open(lambda: self._server is None)
        self._signals_fd = signals_fd
        self._loop.watch(signals_fd, READ, self._signals_came)
        self._children_fd = child_signals()
        if self._children_fd >= 0:
            self._watch_children(READ)
        self.agents.endings.expect(self._restored)
        for agent in self._restored:
            try:
                self.agents.resume(agent)
            except Exception:  # of one agent: it must not cost the others their parent
                traceback.print_exc()
                self.agents.lose(agent)
        self._restored = []
        self._leave_after(_FIRST_SERVER_SECS)
        self._loop.call_later(_FIRST_SERVER_SECS, self._check_first_server)
        self.agents.endings.child_signalled()
        while not self._is_over():
            self._loop.turn()
            self._loop.run(self.agents.after_turn)
            for connection in (self._server, *self._guests):
                if connection is not None:
                    connection.flush()
        _sweep()
        if not self._ends_are_left and not self._leave_ends():
            print("ends are lost", file=sys.stderr, flush=True)
        self._say_goodbye()
        self.agents.close()
        self._reception.close()
        self._loop.close()
        close_all([fd for fd in [self._children_fd] if fd >= 0])

    def end(self, grace_secs: float) -> None:
        """Start nothing more, end all agents, then return from :meth:`run`."""
        is_first = self._end_by is None
        if is_first:
            self._end_by = time.monotonic() + grace_secs + _END_SECS
            self._loop.call_at(self._end_by, lambda: None)
        self.agents.stop_all(grace_secs)
        if is_first:
            self._starts.finish()
            self.agents.stop_all(grace_secs, again=False)

    def _is_over(self) -> bool:
        now = time.monotonic()
        if self._end_by is not None:
            return self.agents.live == 0 or now >= self._end_by
        if self._server is not None or self.agents.live or self._starts:
            self._leave_at = None
            return False
        if self._leave_at is None:
            self._leave_after(_NO_SERVER_SECS)
        if self._leave_at is None or now < self._leave_at:
            return False
        self._ends_are_left = self._leave_ends()
        if not self._ends_are_left:
            self._leave_after(_NO_SERVER_SECS)  # nobody else knows them: stay for the next server
        return self._ends_are_left

    def _check_first_server(self) -> None:
        """After a renewal there are agents, but the server may not have come back."""
        if self._server is None and not self._keeps:
            self.end(_END_GRACE_SECS)

    def _leave_after(self, delay_secs: float) -> None:
        self._leave_at = time.monotonic() + delay_secs
        self._loop.call_at(self._leave_at, lambda: None)

    def _say_goodbye(self) -> None:
        """Send what is left to be said, but wait for nobody."""
        if self._end_request is not None:
            connection, header = self._end_request
            connection.send({"re": header["id"]})
        give_up_at = time.monotonic() + _LAST_WORDS_SECS
        for last in (self._server, *self._guests):
            if last is None:
                continue
            last.flush()
            while last.has_unsent and time.monotonic() < give_up_at:
                time.sleep(0.005)
                last.flush()
            last.close()

    def _leave_ends(self) -> bool:
        """Leave what the server has not acknowledged to the next one; tell whether it is safe."""
        if self._keeps:
            ends = [agent.ended for agent in self.agents.known if agent.ended is not None]
            try:
                self._place.leave_ends(ends)
            except OSError as error:
                if not self._has_complained:
                    print(f"ends cannot be left: {error}", file=sys.stderr, flush=True)
                self._has_complained = True
                return False
        return True

    def _welcome(self, peer: socket.socket) -> None:
        if len(self._guests) == _MAX_GUESTS:
            self._dismiss_guest()
        self._guests.append(Connection(self._loop, peer, self._take, self._lose))

    def _dismiss_guest(self) -> bool:
        """End the connection that has waited longest without a word; tell whether there was one."""
        if self._guests:
            self._guests.pop(0).close()
            return True
        return False

    def _lose(self, connection: Connection) -> None:
        if connection in self._guests:
            self._guests.remove(connection)
        if connection is self._server:
            self._server = None
            self._reception.keep_open(lambda: self._server is None)
            if not self._keeps:
                self.end(_END_GRACE_SECS)

    def _signals_came(self) -> None:
        try:
            numbers = os.read(self._signals_fd, 4096)
        except BlockingIOError:
            return
        if signal.SIGTERM in numbers:
            # The machine goes down, or somebody wants the agents ended: nobody else sends it.
            self.end(_END_GRACE_SECS)
        if signal.SIGCHLD in numbers:
            self.agents.endings.child_signalled()

    def _watch_children(self, events: int) -> None:
        self._loop.watch(self._children_fd, events, self._children_signalled)

    def _children_signalled(self) -> None:
        os.read(self._children_fd, 4096)
        began = time.thread_time()
        self.agents.endings.child_signalled()
        if self.agents.endings.exits.uses_fds:
            # Each agent's exit says so, and nobody waits for this: what it left has ended.
            pause_secs = max(_CHILDREN_SECS, (time.thread_time() - began) * _CHILDREN_SHARE)
            self._watch_children(0)  # it stays where it is: to be added again could be refused
            self._loop.call_later(pause_secs, partial(self._watch_children, READ))

    def _take(
        self, connection: Connection, header: dict[str, Any], body: bytes, fds: Descriptors | None
    ) -> None:
        """Do a request at once, but queue starts, and what concerns a start that is queued."""
        if fds is None:
            connection.send(_refusal(header, "busy", "its descriptors were lost on the way"))
            return
        request = (connection, header, body, fds)
        if connection is not self._server or not self._starts.takes(request):
            self._serve(request)

    def _serve(self, request: Request) -> None:
        self._reply(request, lambda: self._answer(*request))

    def _begin_launch(self, request: Request) -> Start | None:
        """Return the start of an agent; if there is none the launch is refused."""
        return self._reply(request, lambda: self._begun(request[1]))

    def _begun(self, header: Mapping[str, Any]) -> Start:
        self._require_same_version()
        if self._end_by is not None:
            raise Refusal("shutting_down", "the keeper is ending")
        if self._starts.was_given_up(header["agent"]):
            raise Refusal("spawn_failed", "the launch was given up")
        return self._requests.begin_launch(header)

    def _finish_launch(self, request: Request, start: Start) -> None:
        _, header, body, _ = request
        agent = self._reply(request, lambda: self._requests.finish_launch(header, body, start))
        if agent is not None:
            # It was killed then, and may have ended: its end is nobody's either.
            agent.abandoned = self._starts.was_given_up(agent.id)
            self._started.append((request, agent))

    def _answer_launches(self) -> None:
        """Answer what was started. What ends before that costs no descriptors, here and there."""
        if self._started:
            self._loop.run(self.agents.endings.after_turn)
            started, self._started = self._started, []
            for request, agent in started:
                self._reply(request, partial(self._requests.answer_launch, agent))
                agent.is_known = True

    def _reply(
        self, request: Request, answer: Callable[[], Answer | _Later | None]
    ) -> _Later | None:
        """Send what ``answer`` returns, or why it refuses.

        If it returns no answer the reply comes later: return what it did.
        """
        connection, header, _, fds = request
        reply: Mapping[str, Any]
        descriptors: Sequence[int] = ()
        try:
            answered = answer()
            if not isinstance(answered, Answer):
                return answered
            reply = {"re": header.get("id", 0), **answered.fields}
            descriptors = answered.descriptors
        except Refusal as refusal:
            reply = _refusal(header, refusal.code, refusal.words)
        except Exception as error:
            traceback.print_exc()
            reply = _refusal(header, "internal", f"the keeper failed: {error!r}")
        finally:
            close_all(fds.values())
            fds.clear()
        if header.get("id"):
            connection.send(reply, descriptors)
        return None

    def _answer(
        self, connection: Connection, header: dict[str, Any], body: bytes, fds: Descriptors
    ) -> Answer | None:
        name = header["op"]
        if name == "hello":
            return self._hello(connection, header)
        if connection is not self._server:
            raise Refusal("invalid", "the first request must be hello")
        if name == "ping":
            return self._ping()
        if name == "renew":
            self._renew(header["argv"])
        if name == "end":
            self._end_request = (connection, header)
            self.end(header["grace_secs"])
            return None
        self._require_same_version()
        return self._requests.serve(header, body, fds)

    def _require_same_version(self) -> None:
        if self._server_version != VERSION:
            raise Refusal("unsupported", f"this keeper speaks version {VERSION} of the protocol")

    def _hello(self, connection: Connection, header: dict[str, Any]) -> Answer:
        """Serve the one who says hello from now on, and nobody who came before."""
        version, on_disconnect = header["version"], header.get("on_disconnect", "end")
        if not isinstance(version, int) or on_disconnect not in ("keep", "end"):
            raise Refusal("invalid", "hello needs a version, and on_disconnect: keep or end")
        if self._end_by is not None:
            raise Refusal("shutting_down", "the keeper is ending")
        if connection is not self._server:
            if self._server is not None:
                if self._is_held_against(connection):
                    raise Refusal("busy", "this keeper's server is another process, which lives")
                self._server.close()
            self._starts.drop()
            self._guests.remove(connection)
            self._server = connection
        self._server_version = version
        self._keeps = on_disconnect == "keep"
        return Answer(
            {
                "version": VERSION,
                "build": self._build,
                "pid": os.getpid(),
                "instance": self._instance,
            }
        )

    def _is_held_against(self, connection: Connection) -> bool:
        """Whether the server of now is another one than who says hello, and lives."""
        assert self._server is not None
        try:
            return stands_against(self._server.peer, connection.peer)
        except OSError as error:
            words = f"nobody can see whether this keeper's server lives: {error.strerror}"
            raise Refusal("busy", words) from None

    def _renew(self, argv: list[str]) -> None:
        """Become a keeper of other code. Raises ``Refusal``; if it does not, it has not failed."""
        if self._starts:
            raise Refusal("busy", "there are launches under way")
        if self._end_by is not None:
            raise Refusal("shutting_down", "the keeper is ending")
        if self._server is not None:
            self._server.flush()
        # What has come is dealt with here; what comes now stays for the new program.
        before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            self._signals_came()
            if self._end_by is not None:
                raise Refusal("shutting_down", "the keeper is ending")
            renew(argv, self._saved(), self._place.folder, self.agents.launcher.call)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _saved(self) -> dict[str, Any]:
        return {
            "listener_fd": self._place.listener.fileno(),
            "lock_fd": self._place.lock_fd,
            "instance": self._instance,
            "keeps": self._keeps,
            "began_at": self._began_at,
            "own_limits": self._own_limits.saved(),
            "limit_bytes": self.agents.budget.limit_bytes,
            "agents": save_agents(self.agents),
            "trees": self._trees.saved(),
            "keys": self._keys.saved(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what was saved; nothing is touched before :meth:`run`."""
        self._keeps = state["keeps"]
        self._began_at = state["began_at"]
        self.agents.budget.limit_bytes = state["limit_bytes"]
        self._trees.restore(state["trees"])
        self._keys.restore(state["keys"])
        self._restored = restored_agents(state["agents"], self.agents, self._loop)

    def _ping(self) -> Answer:
        return Answer(
            {
                "version": VERSION,
                "pid": os.getpid(),
                "uptime_secs": time.monotonic() - self._began_at,
                **figures(self.agents),
            }
        )

    def _tell(self, event: Mapping[str, Any]) -> None:
        if self._server is not None:
            self._server.send(event)

    def _is_congested(self) -> bool:
        return self._server is not None and self._server.is_congested


def _refusal(header: Mapping[str, Any], code: str, words: str) -> dict[str, Any]:
    return {"re": header.get("id", 0), "code": code, "words": words}


def _sweep() -> None:
    """Kill and reap whatever the agents left behind that could not be told apart."""
    give_up_at = time.monotonic() + _SWEEP_SECS
    while time.monotonic() < give_up_at:
        try:
            left = children()
        except OSError:
            time.sleep(0.005)
            continue
        if not left:
            return
        for pid in left:
            # Unreaped children: their ids are nobody else's. But one that was never a program, whom
            # the launcher reaps.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
