"""The requests that concern agents: from a header to a call and from its result to a reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .agent import Agent, Phase
from .agents import Agents
from .connection import Descriptors
from .keys import KeyMemory
from .protocol import Refusal
from .start import Start
from .system import open_descriptors

__all__ = ["Answer", "Requests", "figures"]

_Header = Mapping[str, Any]


class Answer(NamedTuple):
    """A reply's fields, and the descriptors that its ``fds`` name."""

    fields: Mapping[str, Any]
    descriptors: Sequence[int] = ()


class Requests:
    """Serves the operations on agents. What has a ``key`` is done once for each key.

    A launch takes its time: it has a beginning and two ends, with a look at the agent in between.
    """

    def __init__(self, agents: Agents, keys: KeyMemory) -> None:
        self._agents = agents
        self._keys = keys
        self._operations: dict[str, Callable[[_Header, bytes, Descriptors], Answer]] = {
            "adopt": self._adopt,
            "list": self._list,
            "duplicates": self._duplicates,
            "abandon": self._abandon,
            "release": self._release,
            "forget": self._forget,
            "forget_ended": self._forget_ended,
            "limit_total": self._limit_total,
        }
        self._keyed: dict[str, Callable[[_Header, bytes], Answer]] = {
            "write": self._write,
            "signal": self._signal,
            "signal_many": self._signal_many,
            "stop": self._stop,
            "kill": self._kill,
        }

    def serve(self, header: _Header, body: bytes, descriptors: Descriptors) -> Answer:
        """Do what a request asks for. Raises ``Refusal``."""
        name = header["op"]
        if name in self._keyed:
            return self._once(header, body)
        if name not in self._operations:
            raise Refusal("unsupported", f"the keeper has no operation {name!r}")
        return self._operations[name](header, body, descriptors)

    def begin_launch(self, header: _Header) -> Start:
        """Return the start of an agent. Raises ``Refusal``."""
        return self._agents.begin(header)

    def finish_launch(self, header: _Header, body: bytes, start: Start) -> Agent:
        """Return the agent of a launch whose start is done. Raises ``Refusal``."""
        return self._agents.started(header, body, start)

    def answer_launch(self, agent: Agent) -> Answer:
        """Return the answer to a launch; its agent may have ended. Raises ``Refusal``."""
        self._agents.watch(agent)
        reply = {
            "pid": agent.leader.pid,
            "started_at_ns": agent.started_at_ns,
            "start_ticks": agent.leader.start_ticks,
        }
        if agent.phase is Phase.ENDED:
            if agent.ended is None:
                raise Refusal("spawn_failed", "the launch was given up")
            return Answer({**reply, "ended": agent.ended})
        named = agent.descriptors()
        return Answer({**reply, "fds": list(named)}, list(named.values()))

    def _once(self, header: _Header, body: bytes) -> Answer:
        name = header["op"]
        key = header.get("key", "")
        if not key:
            return self._keyed[name](header, body)
        key = f"{name} {header.get('agent', '')} {key}"
        reply = self._keys.recall(key)
        if reply is not None:
            return Answer(reply)
        answer = self._keyed[name](header, body)
        self._keys.remember(key, {k: v for k, v in answer.fields.items() if k != "fds"})
        return answer

    def _adopt(self, header: _Header, _: bytes, descriptors: Descriptors) -> Answer:
        agent = self._agents.adopt(header, descriptors)
        return Answer({**agent.lengths(), "phase": agent.phase.value})

    def _list(self, *_: object) -> Answer:
        return Answer({"agents": [agent.describe() for agent in self._agents.known]})

    def _duplicates(self, header: _Header, *_: object) -> Answer:
        found = self._agents.duplicates(header["agents"])
        reply = {
            "agents": [(agent_id, list(named)) for agent_id, named in found],
            "fds": [name for _, named in found for name in named],
        }
        return Answer(reply, [fd for _, named in found for fd in named.values()])

    def _write(self, header: _Header, body: bytes) -> Answer:
        backlog_fd = self._agents.write(header["agent"], body, close=header["close"])
        if backlog_fd < 0:
            return Answer({"bytes": len(body)})
        return Answer({"bytes": len(body), "fds": ["backlog"]}, [backlog_fd])

    def _signal(self, header: _Header, _: bytes) -> Answer:
        self._agents.signal(header["agent"], header["signal"], tree=header["tree"])
        return Answer({})

    def _signal_many(self, header: _Header, body: bytes) -> Answer:
        return Answer({"refused": self._agents.signal_many(body, header["signal"])})

    def _stop(self, header: _Header, _: bytes) -> Answer:
        self._agents.stop(header["agent"], header["grace_secs"])
        return Answer({})

    def _kill(self, header: _Header, _: bytes) -> Answer:
        self._agents.kill(header["agent"])
        return Answer({})

    def _abandon(self, header: _Header, *_: object) -> Answer:
        self._agents.abandon(header["agent"])
        return Answer({})

    def _release(self, header: _Header, *_: object) -> Answer:
        self._agents.release(header["agent"], header["stream"], header["offset"])
        return Answer({})

    def _forget(self, header: _Header, *_: object) -> Answer:
        self._agents.forget(header["agent"], remove=header["remove"])
        return Answer({})

    def _forget_ended(self, header: _Header, *_: object) -> Answer:
        self._agents.forget_ended(header["agents"])
        return Answer({})

    def _limit_total(self, header: _Header, *_: object) -> Answer:
        self._agents.limit_total(header["bytes"])
        return Answer({})


def figures(agents: Agents) -> dict[str, Any]:
    """Return what ``ping`` tells of the agents and of the process."""
    return {
        "agents": agents.live,
        "known": len(agents.known),
        "open_fds": _open_fds(),
        "kept_bytes": agents.budget.kept_bytes,
        "waiting_streams": agents.pump.waiting,
    }


def _open_fds() -> int:
    try:
        return open_descriptors()
    except OSError:
        return -1
