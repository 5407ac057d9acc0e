"""A keeper that replaces its own code: its state goes through exec in a file without a name.

The process stays the same, and with it its children, its lock, its listener and every
pipe: the descriptors are left open through exec, and the state says which is which. Times
are of the monotonic clock, which exec does not touch. The new code is tried before, in a
process of its own and with this very state: one that does not start, or cannot build its
agents from it, is refused while the old still runs.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .agent import Agent, Phase
from .agents import Agents
from .input_pipe import InputPipe
from .leader import Adopted, Child, Leader
from .loop import Loop
from .output_pipe import OutputPipe
from .passing import close_all
from .protocol import Refusal

__all__ = ["load_state", "renew", "restored_agents", "save_agents"]

_STATE_VERSION = 3
_VERSION_WITH_OPEN_FILES = 2

_CHECK_SECS = 10.0
_PLAIN = ("phase", "kill_at", "give_up_at", "was_asked", "abandoned", "ended_at_ns", "ended")


def renew(
    argv: list[str],
    state: Mapping[str, Any],
    folder: str,
    call: Callable[[Callable[[], object]], None],
) -> None:
    """Become ``argv``. Does not return; raises ``Refusal`` where it cannot be done.

    ``call`` has the thread do the exec that has started the agents: an exec ends all others, and
    for an agent that asked to be told its parent would have ended with them. No signal may find the
    new program without its handlers: they are blocked in both threads.
    """
    state_fd = _nameless_file(folder)
    inherited = [state_fd]
    try:
        text = json.dumps({"version": _STATE_VERSION, **state}, default=_in_text)
        _write_all(state_fd, text.encode())
        inherited += _descriptors(state)
        _check(argv, inherited)
        for fd in inherited:
            os.set_inheritable(fd, True)
        call(lambda: os.execv(argv[0], [*argv, "--resume", str(state_fd)]))
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        for fd in inherited:
            os.set_inheritable(fd, False)
        os.close(state_fd)
        raise Refusal("unsupported", f"the new keeper cannot take over: {error}") from None


def load_state(fd: int) -> dict[str, Any]:
    """Return the state that :func:`renew` has left; its descriptors are closed on exec again."""
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb") as file:
        state: dict[str, Any] = json.loads(file.read(), object_hook=_from_text)
    if state["version"] == _VERSION_WITH_OPEN_FILES:
        _close_files(state)
    elif state["version"] != _STATE_VERSION:
        raise ValueError(f"a state of version {state['version']}")
    for descriptor in _descriptors(state):
        os.set_inheritable(descriptor, False)
    return state


def _close_files(state: dict[str, Any]) -> None:
    """Make of a state of version 2, whose streams had their files open, one of version 3."""
    for stream in (agent[name] for agent in state["agents"] for name in ("stdout", "stderr")):
        file_fd = stream.pop("file_fd")
        stream["closed"] = file_fd < 0
        close_all([file_fd] if file_fd >= 0 else ())


def save_agents(agents: Agents) -> list[dict[str, Any]]:
    """Return the state of all agents."""
    return [_save_agent(agent) for agent in agents.known]


def restored_agents(saved: list[dict[str, Any]], agents: Agents, loop: Loop) -> list[Agent]:
    """Return the agents that :func:`save_agents` has described, as objects only."""
    return [_restore_agent(one, agents, loop) for one in saved]


def _check(argv: list[str], inherited: list[int]) -> None:
    subprocess.run(
        [*argv, "--check", str(inherited[0])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=inherited,
        timeout=_CHECK_SECS,
        check=True,
    )


def _nameless_file(folder: str) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("keeper")
    path = os.path.join(folder, f"keeper.{os.getpid()}.state")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _descriptors(state: Any) -> Iterator[int]:
    """Return every descriptor in a state: the values whose names end in ``fd``."""
    if isinstance(state, dict):
        for name, value in state.items():
            if isinstance(value, (dict, list)):
                yield from _descriptors(value)
            elif name.endswith("fd") and value is not None and value >= 0:
                yield value
    elif isinstance(state, list):
        for value in state:
            yield from _descriptors(value)


def _save_agent(agent: Agent) -> dict[str, Any]:
    return {
        **{name: getattr(agent, name) for name in _PLAIN},
        "id": agent.id,
        "phase": agent.phase.value,
        "started_at_ns": agent.started_at_ns,
        "leader": _save_leader(agent.leader),
        "stdin": None if agent.stdin is None else agent.stdin.saved(),
        "stdout": agent.stdout.saved(),
        "stderr": agent.stderr.saved(),
        "unfinished": [pipe.path for pipe in agent.unfinished],
    }


def _restore_agent(saved: dict[str, Any], agents: Agents, loop: Loop) -> Agent:
    agent = Agent(
        saved["id"],
        _restore_leader(saved["leader"], agents, loop),
        saved["started_at_ns"],
        None if saved["stdin"] is None else InputPipe.restored(loop, saved["stdin"]),
        OutputPipe.restored(saved["stdout"], agents.budget, agents.files),
        OutputPipe.restored(saved["stderr"], agents.budget, agents.files),
    )
    for name in _PLAIN:
        setattr(agent, name, saved[name])
    agent.phase = Phase(saved["phase"])
    agent.unfinished = {pipe for pipe in agent.outputs if pipe.path in saved["unfinished"]}
    return agent


def _save_leader(leader: Leader) -> dict[str, Any]:
    saved = {"pid": leader.pid, "start_ticks": leader.start_ticks}
    if isinstance(leader, Adopted):
        return {**saved, "adopted_fd": leader.exit_fd, "status": leader.status}
    return saved


def _restore_leader(saved: dict[str, Any], agents: Agents, loop: Loop) -> Leader:
    pid, ticks = saved["pid"], saved["start_ticks"]
    if "adopted_fd" not in saved:
        return Child(agents.endings.exits, pid, ticks)
    leader = Adopted(loop, pid, ticks, saved["adopted_fd"])
    leader.status = saved["status"]
    return leader


def _in_text(value: bytes) -> dict[str, str]:
    """Return bytes as what JSON has; :func:`_from_text` turns it back."""
    return {"base64": base64.b64encode(value).decode("ascii")}


def _from_text(found: dict[str, Any]) -> Any:
    return base64.b64decode(found["base64"]) if found.keys() == {"base64"} else found
