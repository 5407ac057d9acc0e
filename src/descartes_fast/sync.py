"""The client for programs without an event loop: the same interface, blocking.

    with descartes_fast.sync.connect("tcp://127.0.0.1:5555") as client:
        agent = client.spawn_remote(AgentConfig(model_backend="claude", task="..."))

The asyncio client runs in a thread of its own; any number of threads may call at once. It
may be used inside a running event loop, which then waits as for any blocking call.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from signal import Signals
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from . import client as aio
from ._core import (
    AgentConfig,
    AgentInfo,
    AgentStatus,
    BatchControlResponse,
    CommandResponse,
    ControlCommandType,
    HealthCheckResponse,
    LogStreamMessage,
    OutputQueryResponse,
    PauseMode,
    StatusUpdate,
    ZmqOutputStream,
)
from .config import ZmqRunnerConfig
from .errors import AgentError, AgentTimeout, CommunicationError, UsageError
from .runner import AgentExit, AgentId, Progress
from .subscription import Subscription as AsyncSubscription

__all__ = ["Subscription", "ZmqClient", "connect"]

T = TypeVar("T")

# What closing may take at most, even when it goes wrong.
_CLOSE_TIMEOUT_SECS = 2.0


class Subscription(Generic[T]):
    """A stream of messages as a blocking iterator; see the asyncio ``Subscription``."""

    def __init__(self, thread: _LoopThread, inner: AsyncSubscription[T]) -> None:
        self._thread = thread
        self._inner = inner

    @property
    def dropped(self) -> int:
        """How many messages were lost."""
        return self._inner.dropped

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return self.next()

    def next(self, timeout_secs: float | None = None) -> T:
        """Return the next message.

        Raises ``StopIteration`` at the end, ``AgentTimeout`` if none comes in time.
        """
        try:
            return self._thread.run(_next(self._inner, timeout_secs))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the subscription; closing twice, or after the client, is fine."""
        if self._thread.alive:
            self._thread.run(self._inner.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class ZmqClient:
    """A blocking client of one server: the methods of the asyncio ``ZmqClient``.

    Close it with ``disconnect()`` or use it as a ``with``; from any thread.
    """

    def __init__(self, config: ZmqRunnerConfig | None = None) -> None:
        self._client = aio.ZmqClient(config)
        self._lock = threading.Lock()
        self._thread: _LoopThread | None = None
        self._finalizer: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        if self._thread is None:
            self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.disconnect()

    @property
    def config(self) -> ZmqRunnerConfig:
        """The configuration, with the endpoint last connected to."""
        return self._client.config

    @property
    def late_replies(self) -> int:
        """How many answers came when nobody waited for them any more."""
        return self._client.late_replies

    @property
    def broken_replies(self) -> int:
        """How many messages came that were no answers."""
        return self._client.broken_replies

    def connect(self, endpoint: str | None = None) -> None:
        """Connect to a server and check who it is."""
        with self._lock:
            if self._thread is None:
                self._thread = _LoopThread()
                # Also runs when the interpreter ends, or the last reference goes.
                self._finalizer = weakref.finalize(self, _shut_down, self._thread, self._client)
            thread = self._thread
        try:
            thread.run(self._client.connect(endpoint))
        except BaseException:
            if not self._client.is_connected():
                self.disconnect()
            raise

    def disconnect(self) -> None:
        """Close the connection and every subscription; doing it twice is fine."""
        with self._lock:
            self._thread = None
            finalizer, self._finalizer = self._finalizer, None
        if finalizer is not None:
            finalizer()

    def is_connected(self) -> bool:
        """Return whether there is a connection now."""
        return self._client.is_connected()

    def spawn_remote(
        self,
        config: AgentConfig,
        timeout_secs: float | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> AgentInfo:
        """Start an agent and return it once its process runs."""
        return self._run(
            self._client.spawn_remote(
                config, timeout_secs, metadata=metadata, request_id=request_id
            )
        )

    def spawn_many(
        self,
        configs: Iterable[AgentConfig],
        *,
        max_in_flight: int = 64,
        progress: Progress | None = None,
    ) -> list[AgentInfo | AgentError]:
        """Start many agents; ``progress`` is called on the client's own thread."""
        return self._run(
            self._client.spawn_many(configs, max_in_flight=max_in_flight, progress=progress)
        )

    def list_remote_agents(
        self, filter_status: AgentStatus | str | None = None, limit: int | None = None
    ) -> list[AgentInfo]:
        """Return the server's agents."""
        return self._run(self._client.list_remote_agents(filter_status, limit))

    def get_remote_agent(self, agent_id: AgentId) -> AgentInfo | None:
        """Return an agent, or ``None`` if the server has none of that id."""
        return self._run(self._client.get_remote_agent(agent_id))

    def get_agent_status(self, agent_id: AgentId) -> AgentStatus:
        """Return an agent's status."""
        return self._run(self._client.get_agent_status(agent_id))

    def wait_agent(self, agent_id: AgentId, timeout_secs: float | None = None) -> AgentExit:
        """Wait until an agent has ended and return how."""
        return self._run(self._client.wait_agent(agent_id, timeout_secs))

    def pause_agent(self, agent_id: AgentId, *, mode: PauseMode | str | None = None) -> None:
        """Pause an agent."""
        self._run(self._client.pause_agent(agent_id, mode=mode))

    def resume_agent(self, agent_id: AgentId) -> None:
        """Let a paused agent go on."""
        self._run(self._client.resume_agent(agent_id))

    def stop_agent(self, agent_id: AgentId, *, grace_secs: float | None = None) -> None:
        """Ask an agent to end, and make it end when its grace is over."""
        self._run(self._client.stop_agent(agent_id, grace_secs=grace_secs))

    def kill_agent(self, agent_id: AgentId) -> None:
        """End an agent and all it has started, at once."""
        self._run(self._client.kill_agent(agent_id))

    def signal_agent(self, agent_id: AgentId, signal: Signals | str | int) -> None:
        """Send a signal to an agent's process."""
        self._run(self._client.signal_agent(agent_id, signal))

    def control_agent(
        self,
        agent_id: AgentId,
        command_type: ControlCommandType | str,
        payload: Any = None,
        timeout_secs: float | None = None,
        *,
        request_id: str | None = None,
    ) -> CommandResponse:
        """Send any command to an agent and return the server's consent."""
        return self._run(
            self._client.control_agent(
                agent_id, command_type, payload, timeout_secs, request_id=request_id
            )
        )

    def batch_control(
        self,
        agent_ids: Iterable[AgentId],
        command_type: ControlCommandType | str,
        payload: Any = None,
        fail_fast: bool = False,
    ) -> BatchControlResponse:
        """Send one command to many agents; the answer holds each one's result."""
        return self._run(self._client.batch_control(agent_ids, command_type, payload, fail_fast))

    def send_action_to_agent(
        self,
        agent_id: AgentId,
        action: str,
        params: Any = None,
        timeout_secs: float | None = None,
    ) -> CommandResponse:
        """Run a custom action; its result is the answer's ``data``."""
        return self._run(self._client.send_action_to_agent(agent_id, action, params, timeout_secs))

    def write_agent_stdin(self, agent_id: AgentId, data: bytes, *, close: bool = False) -> None:
        """Write to an agent's stdin, UTF-8 as a whole or not at all, and close it if asked."""
        self._run(self._client.write_agent_stdin(agent_id, data, close=close))

    def read_agent_stdout(self, agent_id: AgentId, *, max_bytes: int | None = None) -> bytes | None:
        """Return output that nobody has read yet, or ``None`` if there is none."""
        return self._run(self._client.read_agent_stdout(agent_id, max_bytes=max_bytes))

    def read_agent_stderr(self, agent_id: AgentId, *, max_bytes: int | None = None) -> bytes | None:
        """Return what nobody has read yet of stderr, or ``None`` if there is nothing."""
        return self._run(self._client.read_agent_stderr(agent_id, max_bytes=max_bytes))

    def query_agent_output(
        self,
        agent_id: AgentId,
        stream: ZmqOutputStream | str,
        filter: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> OutputQueryResponse:
        """Return lines of an agent's output."""
        return self._run(self._client.query_agent_output(agent_id, stream, filter, limit, offset))

    def health_check(self) -> HealthCheckResponse:
        """Return the server's health."""
        return self._run(self._client.health_check())

    def subscribe_status_updates(
        self, agent_id: AgentId | None = None
    ) -> Subscription[StatusUpdate]:
        """Return how things are and then every change, of one agent or all."""
        thread = self._running()
        return Subscription(thread, thread.run(self._client.subscribe_status_updates(agent_id)))

    def stream_agent_logs(
        self, agent_id: AgentId | None = None, *, from_offset: int | None = None
    ) -> Subscription[LogStreamMessage]:
        """Return the output of one agent or all."""
        thread = self._running()
        inner = thread.run(self._client.stream_agent_logs(agent_id, from_offset=from_offset))
        return Subscription(thread, inner)

    def _running(self) -> _LoopThread:
        thread = self._thread
        if thread is None:
            raise UsageError("the client is not connected; call connect() first")
        return thread

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            thread = self._running()
        except UsageError:
            coroutine.close()
            raise
        return thread.run(coroutine)


@contextlib.contextmanager
def connect(endpoint: str | None = None, **config: Any) -> Iterator[ZmqClient]:
    """Connect to a server for the length of a ``with``; arguments as the asyncio ``connect``."""
    client = ZmqClient(ZmqRunnerConfig.load(endpoint=endpoint, **config))
    client.connect()
    try:
        yield client
    finally:
        client.disconnect()


class _LoopThread:
    """A thread with an event loop, that other threads run coroutines on."""

    def __init__(self) -> None:
        started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._stopping = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._main, args=(started,), name="descartes-fast", daemon=True
        )
        self._thread.start()
        self._loop = started.result()

    @property
    def alive(self) -> bool:
        """Whether coroutines can still be run."""
        return not self._stopping

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_secs: float | None = None) -> T:
        """Run a coroutine on the loop and return its result; an interrupt cancels it."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UsageError("the blocking client was called on its own thread")
        with self._lock:
            if self._stopping:
                coroutine.close()
                raise CommunicationError("the client is disconnected")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_secs)
        except concurrent.futures.CancelledError:
            raise CommunicationError("the client was disconnected") from None
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Cancel what runs, and end the thread within a bounded time; twice is fine."""
        with self._lock:
            if not self._stopping:
                self._stopping = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_TIMEOUT_SECS)

    def _main(self, started: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            loop = runner.get_loop()
            started.set_result(loop)
            loop.run_forever()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a loop that can watch sockets: uvloop's where it is installed."""
    if sys.platform != "win32":
        with contextlib.suppress(ImportError):
            import uvloop

            return uvloop.new_event_loop
    return asyncio.SelectorEventLoop


def _shut_down(thread: _LoopThread, client: aio.ZmqClient) -> None:
    """Disconnect and end the thread, waiting no longer than a bounded time."""
    with contextlib.suppress(AgentError, UsageError, TimeoutError):
        thread.run(client.disconnect(), _CLOSE_TIMEOUT_SECS)
    thread.stop()


async def _next(inner: AsyncSubscription[T], timeout_secs: float | None) -> T:
    try:
        async with asyncio.timeout(timeout_secs):
            return await anext(inner)
    except TimeoutError as error:
        if isinstance(error, AgentTimeout):
            raise
        raise AgentTimeout(f"no message within {timeout_secs:g} s") from None
