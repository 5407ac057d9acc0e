"""One chaos run: starts all, breaks it by the schedule, heals it, and collects the history."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from descartes_fast import AgentConfig, AgentError, AgentInfo, LogStreamType, ZmqClient, connect
from faults.processes import children_of
from faults.proxy import Proxy
from faults.restarts import RestartableServer, sweep, wait_until_gone
from leaks import adopt_orphans

from .history import FinalAgent, History, read_calls
from .schedule import KILLS, Fault, schedule

__all__ = ["ChaosRun", "RunSettings"]

_SERVER_SETTINGS = """\
max_agents = 1000
retain_agents = 1000000
retain_secs = 86400
disk_reserve_bytes = 65536
status_update_interval_secs = 1
"""
_FINISH_SECS = 60.0
_END_SECS = 30.0
_WHOLE_SECS = 10.0
_TICK_SECS = 0.02
_NOTICE_SECS = 0.05
_FILLER = "filler"
_FIRST = "first"
_TESTS = str(Path(__file__).parents[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What a run is like. ``disk`` is a small file system of its own for the state, if there is."""

    seed: int
    secs: float
    clients: int
    folder: Path
    disk: Path | None = None

    def faults(self) -> list[Fault]:
        return schedule(self.seed, self.secs, self.clients, full_disk=self.disk is not None)


@dataclass(slots=True)
class _ClientProcess:
    number: int
    lives: int = 0
    process: subprocess.Popen[bytes] | None = None


class ChaosRun:
    """A run; :meth:`run` returns its history."""

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self.history = History()
        self.restarts = 0
        self.recoveries: list[float] = []
        """Seconds from each kill until server and keeper were seen to be whole again."""
        self._dice = random.Random(f"{settings.seed}/replies")
        self._loses = False
        self._stopping = False
        self._killed: set[str] = set()
        """What was killed since server and keeper were last seen whole."""
        self._clients = [_ClientProcess(number) for number in range(settings.clients)]
        self._server = RestartableServer(
            settings.folder,
            settings=_SERVER_SETTINGS,
            state=None if settings.disk is None else settings.disk / "state",
        )
        self._commands = Proxy(self._server.endpoint, self._lose)
        self._events = Proxy(self._server.pub_endpoint)

    async def run(self) -> History:
        """Run it all. Nothing is left running, whatever happens."""
        adopt_orphans()
        server = self._server
        try:
            await asyncio.to_thread(server.start)
            before = await self._open_files_of_an_idle_server()
            async with self._commands, self._events, self._kept_running():
                await self._break_things()
                await self._finish_clients()
            await self._settle()
            self._compare_files(before)
            await asyncio.to_thread(self._stop)
        finally:
            for client in self._clients:
                if client.process is not None:
                    client.process.kill()
                    client.process.wait()
            sweep(server)
            self._reap()
        self._collect()
        return self.history

    async def _open_files_of_an_idle_server(self) -> dict[str, Counter[str]]:
        """Return how many files server and keeper have open that have done something.

        The server is one that did not start the keeper, which it watches by a descriptor then.
        """
        await asyncio.to_thread(self._server.restart)
        async with connect(self._server.endpoint) as client:
            info = await client.spawn_remote(AgentConfig(name=_FIRST, model_backend="sh", task=":"))
            await client.wait_agent(info, _END_SECS)
        return _open_files(self._server)

    # The faults

    async def _break_things(self) -> None:
        began = time.monotonic()
        ends = began + self.settings.secs
        async with asyncio.TaskGroup() as group:
            for fault in self.settings.faults():
                await asyncio.sleep(max(0.0, began + fault.at_secs - time.monotonic()))
                if fault.kind in KILLS and not fault.hasty:
                    before = time.monotonic()
                    await self._wait_until_whole()
                    began += time.monotonic() - before
                if time.monotonic() > ends:
                    break
                group.create_task(self._inject(fault))
            await asyncio.sleep(max(0.0, ends - time.monotonic()))

    async def _wait_until_whole(self) -> None:
        give_up_at = time.monotonic() + _WHOLE_SECS
        while self._killed and time.monotonic() < give_up_at:  # noqa: ASYNC110
            await asyncio.sleep(_TICK_SECS)

    async def _inject(self, fault: Fault) -> None:
        print(fault, flush=True)
        if fault.kind in KILLS:
            self._kill(fault.kind)
            return
        self.history.faults.append((time.monotonic(), fault.kind))
        match fault.kind:
            case "client":
                process = self._clients[fault.client].process
                if process is not None:
                    process.kill()
            case "cut":
                for proxy in (self._commands, self._events):
                    proxy.cut()
            case "delay":
                self._delay(0.02)
                await asyncio.sleep(fault.lasts_secs)
                self._delay(0.0)
            case "freeze":
                self._freeze(True)
                await asyncio.sleep(fault.lasts_secs)
                self._freeze(False)
            case "lose":
                self._loses = True
                await asyncio.sleep(fault.lasts_secs)
                self._loses = False
            case "full disk":
                await self._fill_disk(fault.lasts_secs)

    def _kill(self, kind: str) -> None:
        """SIGKILL server, keeper or both; one before the other is back is the same as both."""
        self._killed |= {"server", "keeper"} if kind == "both" else {kind}
        if kind != "keeper" and self._server.process is not None:
            self._server.process.kill()
        if kind != "server" and (keeper := self._server.keeper_pid()) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper, signal.SIGKILL)
        effect = "both" if len(self._killed) == 2 else kind
        self.history.faults.append((time.monotonic(), effect))

    async def _watch_health(self) -> None:
        """Notice when server and keeper are both there, and each has the ends of the pipes."""
        settings = {"request_timeout_secs": 0.25, "reconnect_delay_secs": 0.05}
        async with connect(
            self._server.endpoint, max_reconnect_attempts=10**6, **settings
        ) as client:
            while True:
                faults = len(self.history.faults)
                await asyncio.sleep(_NOTICE_SECS)  # a connection that broke has been seen to
                with contextlib.suppress(AgentError):
                    health = await client.health_check()
                    reason = (health.metadata or {}).get("reason", "")
                    if "keeper" not in reason and faults == len(self.history.faults):
                        self._are_whole()

    def _are_whole(self) -> None:
        if self._killed:
            killed_at = max(at for at, kind in self.history.faults if kind in KILLS)
            self.recoveries.append(time.monotonic() - killed_at)
            self._killed.clear()

    def _delay(self, secs: float) -> None:
        for proxy in (self._commands, self._events):
            proxy.delay_secs = secs

    def _freeze(self, frozen: bool) -> None:
        for proxy in (self._commands, self._events):
            if frozen:
                proxy.freeze()
            else:
                proxy.thaw()

    def _lose(self, _: list[bytes]) -> bool:
        return self._loses and self._dice.random() < 0.2

    async def _fill_disk(self, secs: float) -> None:
        assert self.settings.disk is not None
        filler = self.settings.disk / _FILLER
        descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
        try:
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        end = os.fstat(descriptor).st_size
                        os.posix_fallocate(descriptor, end, size)
            await asyncio.sleep(secs)
        finally:
            os.close(descriptor)
            filler.unlink(missing_ok=True)

    # What starts again

    @asynccontextmanager
    async def _kept_running(self) -> AsyncIterator[None]:
        """Start server and clients again when they have ended; collect orphans, as init does."""
        tasks = [
            asyncio.create_task(self._keep_running()),
            asyncio.create_task(self._watch_health()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_running(self) -> None:
        while True:
            if not self._server.runs:
                self._server.launch()
                self.restarts += 1
            for client in self._clients:
                self._look_after(client)
            self._reap()
            await asyncio.sleep(_TICK_SECS)

    def _look_after(self, client: _ClientProcess) -> None:
        code = client.process.poll() if client.process is not None else 0
        if code is None:
            return
        if code not in (0, -signal.SIGKILL, -signal.SIGTERM):  # SIGTERM may come too early for it
            self.history.leftovers.append(
                f"client {client.number} ended by itself with {code}; see {self._log(client)}"
            )
        if self._stopping and code == 0 and client.process is not None:
            return
        client.lives += 1
        words = [self._commands.endpoint, self._events.endpoint, str(self.settings.seed)]
        words += [str(client.number), str(client.lives), "finish" if self._stopping else "work"]
        words.append(str(self.settings.folder))
        path = os.pathsep.join(filter(None, (_TESTS, os.environ.get("PYTHONPATH"))))
        with self._log(client).open("ab") as log:
            client.process = subprocess.Popen(
                [sys.executable, "-m", "chaos.client", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": path},
            )

    def _log(self, client: _ClientProcess) -> Path:
        return self.settings.folder / f"client-{client.number}.log"

    def _reap(self) -> None:
        known = {self._server.process, *(client.process for client in self._clients)}
        ours = {process.pid for process in known if process is not None}
        for pid, state in children_of(os.getpid()).items():
            if state == "Z" and pid not in ours:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    # The end

    async def _finish_clients(self) -> None:
        """Let the clients bring what they have begun to its end."""
        self._stopping = True
        for client in self._clients:
            if client.process is not None and client.process.poll() is None:
                client.process.terminate()
        deadline = time.monotonic() + _FINISH_SECS
        while any(client.process.poll() != 0 for client in self._clients if client.process):
            if time.monotonic() > deadline:
                self.history.leftovers.append("a client did not come to an end: calls hang")
                return
            await asyncio.sleep(_TICK_SECS)

    async def _settle(self) -> None:
        """Bring every agent to its end, and note how it ended and what it has written."""
        async with connect(self._server.endpoint) as client:
            infos = [info for info in await client.list_remote_agents() if info.name != _FIRST]
            for info in infos:
                if not info.status.is_terminal:
                    await _end(client, info)
            room = asyncio.Semaphore(16)
            agents = await asyncio.gather(*(self._final(client, info, room) for info in infos))
            self.history.agents = [agent for agent in agents if agent is not None]

    async def _final(
        self, client: ZmqClient, info: AgentInfo, room: asyncio.Semaphore
    ) -> FinalAgent | None:
        async with room:
            try:
                end = await client.wait_agent(info, _END_SECS)
                output = {LogStreamType.STDOUT: b"", LogStreamType.STDERR: b""}
                async with await client.stream_agent_logs(info, from_offset=0) as messages:
                    async for message in messages:
                        output[message.stream_type] += message.data
            except AgentError as error:
                self.history.leftovers.append(f"agent {info.name} has no end: {error!r}")
                return None
        return FinalAgent(
            tag=info.name,
            status=end.status.value,
            exit_code=end.exit_code,
            signal=end.signal,
            stdout=output[LogStreamType.STDOUT],
            stderr=output[LogStreamType.STDERR],
        )

    def _compare_files(self, before: dict[str, Counter[str]]) -> None:
        deadline = time.monotonic() + _END_SECS
        while any(more := [now - before[who] for who, now in _open_files(self._server).items()]):
            if time.monotonic() > deadline:
                self.history.leftovers.append(f"open files of server and keeper: {more}")
                return
            time.sleep(_TICK_SECS)

    def _stop(self) -> None:
        """End the server; nothing of it may be left."""
        left = self.history.leftovers
        if (code := self._server.stop()) != 0:
            left.append(f"the server ended with {code}")
        self._reap()
        try:
            wait_until_gone(self._server)
        except AssertionError as error:
            left.append(str(error))
        self._reap()
        left.extend(f"process {pid} ({state})" for pid, state in children_of(os.getpid()).items())
        if "Traceback" in self._server.words():
            left.append(f"an exception was said of:\n{self._server.words()}")

    def _collect(self) -> None:
        folder = self.settings.folder
        for client in self._clients:
            self.history.calls += read_calls(folder / f"client-{client.number}.jsonl")
        (folder / "faults.json").write_text(json.dumps(self.history.faults))
        (folder / "agents.json").write_text(
            json.dumps([asdict(agent) for agent in self.history.agents], default=repr)
        )
        births = folder / "births"
        self.history.births = births.read_text().split() if births.exists() else []


async def _end(client: ZmqClient, info: AgentInfo) -> None:
    """Let an agent go on and end: its stdin is closed; one that has ended by now is fine."""
    for command, payload in (("resume", None), ("write_stdin", {"data": "", "close": True})):
        with contextlib.suppress(AgentError):
            await client.control_agent(info, command, payload)


def _open_files(server: RestartableServer) -> dict[str, Counter[str]]:
    """Return what server and keeper have open, files of one kind counted together."""
    found = {}
    for who, pid in (("server", server.pid), ("keeper", server.keeper_pid())):
        kinds = found[who] = Counter[str]()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                name = os.readlink(entry)
                if "journal.sqlite" not in name:  # SQLite's, opened when it needs them
                    kinds[re.sub(r"\d+", "N", name)] += 1
    return found


def summary(run: ChaosRun) -> str:
    """Return what a run consisted of, in a few lines."""
    history = run.history
    outcomes = Counter(f"{call.outcome}" for call in history.calls)
    written = sum(len(agent.stdout) + len(agent.stderr) for agent in history.agents)
    kinds = Counter(kind for _, kind in history.faults)
    times = run.recoveries or [0.0]
    return "\n".join(
        (
            f"calls: {len(history.calls)}, of them {dict(outcomes)}",
            f"agents: {len(history.agents)}, {written} bytes of output",
            f"faults: {dict(kinds)}; server starts: {run.restarts + 1}",
            f"whole again after a kill: median {median(times):.2f} s, longest {max(times):.2f} s",
        )
    )
