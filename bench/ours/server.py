"""Our server for a benchmark: a process with a state directory of its own, gone afterwards."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from descartes_fast import AgentConfig, AgentError, AgentInfo, ZmqClient

__all__ = ["OurServer", "spawn_live"]

MOST_AGENTS = 6000
_END_SECS = 45.0
_BACKENDS = """
[backends.sh]
command = ["sh", "-c", "{task}"]

[backends.waiting]
command = ["sh", "-c", "{task}"]
stdin = "pipe"

[backends.sleep]
command = ["%(sleep)s", "{task}"]

[backends.true]
command = ["%(true)s", "{task}"]

[backends.cat]
command = ["%(cat)s", "{task}"]
"""


class OurServer:
    """``descartes-fast serve`` on two free TCP ports of the loopback."""

    def __init__(self, **settings: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dfast-bench-"))
        programs = {name: shutil.which(name) or name for name in ("sleep", "true", "cat")}
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        (self.folder / "server.toml").write_text(
            "\n".join(("[zmq_server]", *lines, _BACKENDS % programs))
        )
        self.endpoint = "tcp://127.0.0.1:0"
        self.pub_endpoint = "tcp://127.0.0.1:0"
        self.server_id = ""
        self.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Start it, on the endpoints that it had if it ran before."""
        command = [sys.executable, "-m", "descartes_fast", "serve", "--json"]
        command += ["--config", str(self.folder / "server.toml")]
        command += ["--state-dir", str(self.folder / "state"), "--max-agents", str(MOST_AGENTS)]
        command += ["--endpoint", self.endpoint, "--pub-endpoint", self.pub_endpoint]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"the server did not start: exit code {code}")
        facts = json.loads(line)
        self.endpoint, self.pub_endpoint = facts["endpoint"], facts["pub_endpoint"]
        self.server_id = facts["server_id"]

    def kill(self) -> None:
        """SIGKILL it, as a crash would."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def keeper_pids(self) -> list[int]:
        """Return the keepers of this server: the processes that name its state directory."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            text = b" ".join(words)
            if b"keeper" in text and str(self.folder).encode() in text:
                found.append(int(folder.name))
        return found

    def close(self) -> None:
        """End it and its agents, and remove what it kept."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_END_SECS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


async def spawn_live(client: ZmqClient, count: int) -> tuple[list[AgentInfo], str]:
    """Start agents that sleep; return those that run, and why not more if there are fewer."""
    config = AgentConfig(name="sleeper", model_backend="sleep", task="infinity")
    answers: Sequence[AgentInfo | AgentError] = await client.spawn_many([config] * count)
    infos = [answer for answer in answers if isinstance(answer, AgentInfo)]
    words = next((str(answer) for answer in answers if isinstance(answer, AgentError)), "")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # the spawns' own work is over when nothing moves
        health = await client.health_check()
        if (health.active_agents or 0) >= len(infos):
            break
        await asyncio.sleep(0.05)
    return infos, words
