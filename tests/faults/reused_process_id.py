"""The scene of ``test_reused_process_id``: runs in a process id namespace of its own.

Server and keeper, or the server alone, are killed; the agent ends; a stranger gets its process
id; a server comes and is asked for all that signals the agent.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from descartes_fast import AgentConfig, AgentError, AgentInfo, connect
from descartes_fast.server.keeper.proc import start_ticks
from faults.restarts import RestartableServer, restartable_server
from leaks import adopt_orphans

_TRIES = 200


async def start_agent(server: RestartableServer) -> tuple[AgentInfo, int]:
    async with connect(server.endpoint) as client:
        agent = await client.spawn_remote(AgentConfig(model_backend="sh", task="exec sleep 600"))
        status = await client.control_agent(agent, "get_status")
        return agent, status.data["pid"]


def wait_until_gone(pid: int) -> None:
    """Collect a process as the first process does, or see its parent do it."""
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            time.sleep(0.005)


def start_stranger(pid: int, ticks: int) -> subprocess.Popen[bytes]:
    """Start a process of that id, in a process group of its own as an agent is.

    It starts in a later tick than the agent did, a hundredth of a second at most: that is how fine
    the system tells starts apart, and no system goes through all of its ids in such a time.
    """
    for _ in range(_TRIES):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
        if stranger.pid == pid and start_ticks(pid) != ticks:
            return stranger
        stranger.kill()
        stranger.wait()
    raise AssertionError(f"no process got the id {pid}")


async def act_on(server: RestartableServer, agent: AgentInfo) -> dict[str, Any]:
    refusals = []
    async with connect(server.endpoint) as client:
        end = await client.wait_agent(agent, timeout_secs=10)
        for command, payload in (
            ("signal", {"signal": "SIGTERM"}),
            ("pause", None),
            ("stop", {"grace_secs": 0.1}),
            ("kill", None),
        ):
            try:
                await client.control_agent(agent, command, payload)
            except AgentError as error:
                refusals.append(error.code)
    found = {"status": end.status.value, "exit_code": end.exit_code, "signal": end.signal}
    return found | {"refusals": refusals}


def main(killed: str) -> None:
    adopt_orphans()
    with restartable_server() as server:
        agent, pid = asyncio.run(start_agent(server))
        ticks = start_ticks(pid)
        keeper = server.keeper_pid()
        assert keeper is not None
        server.kill()
        if killed == "both":
            os.kill(keeper, signal.SIGKILL)
            wait_until_gone(keeper)
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid)
        stranger = start_stranger(pid, ticks)
        server.start()
        seen = asyncio.run(act_on(server, agent))
        assert server.stop() == 0
        seen["stranger has the id"] = stranger.pid == pid
        seen["stranger lives"] = stranger.poll() is None
        stranger.kill()
        stranger.wait()
        server.start()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
