"""ZmqAgentServer: a server's life, from start to the last agent's end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from ..config import ZmqServerConfig
from ..errors import UsageError
from .actions import ActionHandler, Actions
from .agent import Agent
from .assembly import COMMANDS, Parts, assemble
from .keeper_link import KeeperLink
from .statistics import Counters, ServerStatistics

__all__ = ["ZmqAgentServer"]

_KILL_SECS = 5.0  # for the agents that outlive their grace, and for their last output
_ASK_SECS = 3.0  # for the keeper to take what it is told
_LAST_REPLIES_SECS = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ZmqAgentServer:
    """A server of agents, in the running event loop.

    ``async with ZmqAgentServer(config) as server`` starts and closes it; so do :meth:`start` and
    :meth:`aclose`, and :meth:`serve_forever` runs until SIGTERM or Ctrl-C. A server that was
    closed cannot be started again.
    """

    def __init__(self, config: ZmqServerConfig | None = None) -> None:
        self.config = ZmqServerConfig() if config is None else config
        self._actions = Actions(self.config.request_timeout_secs)
        self._counters = Counters()
        self._stack = AsyncExitStack()
        self._parts: Parts | None = None
        self._started = False
        self._starting: asyncio.Future[None] | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    # -- what it is ------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """The endpoint that takes commands, as it is bound."""
        return self._built().identity.endpoint

    @property
    def pub_endpoint(self) -> str:
        """The endpoint that publishes status and logs, as it is bound."""
        return self._built().bound_pub_endpoint

    @property
    def server_id(self) -> str:
        """The name the server goes by: configured, or made up once for its state directory."""
        return self._built().identity.server_id

    def statistics(self) -> ServerStatistics:
        """Return what the server has counted until now."""
        parts = self._built()
        parts.router.settle()
        return ServerStatistics.of(
            self._counters,
            started_at=parts.identity.started_at,
            clients=parts.admission.connections(COMMANDS),
            agents_by_status=parts.registry.counts(),
        )

    def register_action(self, name: str, handler: ActionHandler) -> None:
        """Let ``await handler(agent_info, params)`` answer the custom action ``name``.

        What it returns is the answer's data; an ``AgentError`` that it raises is the refusal.
        Raises ``UsageError`` if there is an action of that name already.
        """
        self._actions.register(name, handler)

    # -- its life --------------------------------------------------------------------

    async def start(self) -> None:
        """Bind the endpoints, find or start the keeper, take the agents of an earlier server back,
        and take requests.

        Raises ``UsageError`` for endpoints or a state directory that cannot be used; nothing is
        left behind then.
        """
        if self._started:
            raise UsageError("a server is started once")
        self._started = True
        try:
            self._parts = await assemble(
                self._stack, self.config, actions=self._actions, counters=self._counters
            )
        except BaseException:
            await self._stack.aclose()
            raise

    async def serve_forever(self, *, on_started: Callable[[], None] | None = None) -> None:
        """Run until SIGTERM, SIGINT or :meth:`aclose`; then close. A second signal kills,
        a third one does not wait for the keeper.

        Starts the server unless it is started, and calls ``on_started`` when it takes requests; a
        signal that comes earlier gives the start up. The signals' handlers are put back at the
        end; outside of the main thread there are none.
        """
        with _signal_handlers(self._on_signal):
            try:
                if self._started or await self._start_unless_signalled():
                    if on_started is not None:
                        on_started()
                    await self._stopping.wait()
            finally:
                await self.aclose()

    async def aclose(self) -> None:
        """Refuse new work, stop the agents within their grace, and release everything.

        With ``keep_agents`` in the configuration the agents run on, with their keeper, and the next
        server of the same state directory has them. Closing twice is fine; cancelling it does not
        interrupt it.
        """
        self._stopping.set()
        if self._parts is None:
            return
        if self._closing is None:
            self._parts.handlers.accepting = False
            self._closing = asyncio.get_running_loop().create_task(self._close(self._parts))
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _start_unless_signalled(self) -> bool:
        self._starting = asyncio.ensure_future(self.start())
        try:
            await asyncio.wait({self._starting})
        finally:
            if not self._starting.done():  # who serves is cancelled, not the server by a signal
                self._starting.cancel()
                await asyncio.wait({self._starting})
        if self._starting.cancelled():
            return False
        self._starting.result()
        return True

    async def _close(self, parts: Parts) -> None:
        try:
            if not self.config.keep_agents:
                await self._end_agents(parts)
            await parts.service.join(_LAST_REPLIES_SECS)
        finally:
            await self._stack.aclose()

    async def _end_agents(self, parts: Parts) -> None:
        """Stop all agents; kill those that outlive their grace, or all at a second signal.

        A keeper that does not answer is killed, and what it has not ended is ended without it.
        """
        agents = parts.registry.alive()
        graces = [_grace_secs(agent, self.config) for agent in agents]
        stops = [
            parts.operations.stop(agent, grace) for agent, grace in zip(agents, graces, strict=True)
        ]
        if await self._in_time(_all(stops), _ASK_SECS) or await self._answers(parts.keeper):
            ends = parts.registry.wait_until_none_alive()
            await self._in_time(ends, max(graces, default=0.0) + _KILL_SECS)
        self._hurry.clear()
        if left := parts.registry.alive():
            kills = [parts.keeper.kill(agent.id) for agent in left]
            if await self._in_time(_all(kills), _ASK_SECS):
                await self._in_time(parts.registry.wait_until_none_alive(), _KILL_SECS)
        if parts.registry.alive() or not await self._answers(parts.keeper):
            parts.keeper.give_up("the keeper did not end its agents")

    async def _answers(self, keeper: KeeperLink) -> bool:
        return await self._in_time(keeper.ping(), _ASK_SECS)

    async def _in_time(self, work: Coroutine[Any, Any, Any], secs: float) -> bool:
        """Tell whether ``work`` was done before the time was up or there was a hurry."""
        working = asyncio.ensure_future(work)
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({working, hurry}, timeout=secs, return_when=asyncio.FIRST_COMPLETED)
        done = working.done()
        for waiting in (working, hurry):
            waiting.cancel()
        await asyncio.wait({working, hurry})
        return done and not working.cancelled() and working.exception() is None

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        elif self._starting is not None:
            self._starting.cancel()
        self._stopping.set()

    def _built(self) -> Parts:
        if self._parts is None:
            raise UsageError("the server has not been started")
        return self._parts


def _grace_secs(agent: Agent, config: ZmqServerConfig) -> float:
    return config.stop_grace_secs if agent.stop_grace_secs is None else agent.stop_grace_secs


async def _all(asked: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Await all; what fails leaves its agent to what comes next."""
    await asyncio.gather(*asked, return_exceptions=True)


@contextlib.contextmanager
def _signal_handlers(on_signal: Callable[[], None]) -> Iterator[None]:
    """Call ``on_signal`` for SIGTERM and SIGINT inside the block; restore the handlers after it."""
    loop = asyncio.get_running_loop()
    previous: dict[signal.Signals, Any] = {}
    try:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            try:
                loop.add_signal_handler(number, on_signal)
            except (NotImplementedError, RuntimeError, ValueError):  # not the main thread
                break
            previous[number] = handler
        yield
    finally:
        for number, handler in previous.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
