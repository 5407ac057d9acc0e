"""Puts the parts of a server together, each with its cleanup on one stack."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import zmq

from .._core.quick_status import QuickReplies
from ..config import ZmqServerConfig
from .actions import Actions
from .admission import Admission
from .backends import Backends
from .descriptors import raise_descriptor_limit
from .dispatch import Dispatcher
from .endpoints import IpcClaim, bind, checked_endpoint
from .envelope import Envelope
from .handlers import Handlers
from .health import Health
from .housekeeping import keep_house
from .identity import ServerIdentity
from .in_thread import in_thread
from .journal import Journal, NoJournal
from .keeper_link import KeeperLink
from .keeper_loss import KeeperLoss
from .keeper_process import ENDS_NAME
from .limits import Reserves
from .log_feed import LogFeed
from .news import AgentNews, KeeperNews
from .operations import Operations
from .output_removal import OutputRemoval
from .publisher import Publisher
from .queries import Queries
from .recovery import Recovery
from .registry import Registry
from .replay import Replay
from .router import Router
from .service import Service
from .sockets import IO_THREADS, LINGER_MS, command_socket, publishing_socket
from .spawner import Spawner
from .state_dir import JOURNAL_NAME, StateDir
from .statistics import Counters
from .status_feed import StatusFeed
from .status_replies import StatusReplies
from .tasks import Tasks
from .together import Together

__all__ = ["COMMANDS", "Parts", "assemble"]

COMMANDS, PUBLICATIONS = "commands", "publications"

_THREADS = 2  # of each kind
_WAIT_MARGIN = 0.8  # a read's wait, or a query, ends before the time for its request does


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a running server consists of, as far as its life needs it."""

    identity: ServerIdentity
    bound_pub_endpoint: str
    admission: Admission
    registry: Registry
    keeper: KeeperLink
    operations: Operations
    handlers: Handlers
    service: Service
    router: Router


async def assemble(
    stack: AsyncExitStack, config: ZmqServerConfig, *, actions: Actions, counters: Counters
) -> Parts:
    """Return the parts, running. At any moment ``stack`` closes what there is by then.

    Raises ``UsageError`` for a configuration that this machine cannot serve.
    """
    backends = Backends(config.backends)
    agent_nofile = raise_descriptor_limit()
    state_dir = StateDir(config.state_path())
    stack.callback(state_dir.close)
    journal = await _journal(stack, config, state_dir)
    bound = await _bind(stack, config, counters)
    identity = ServerIdentity(
        server_id=config.server_id or state_dir.server_id(),
        endpoint=bound.endpoint,
        pub_endpoint=config.advertise_pub or bound.pub_endpoint,
        max_agents=config.max_agents,
        publishes_status=config.enable_status_updates,
        journal_id=journal.journal_id,
        remembers=config.replay_bytes > 0,
    )

    files = _threads(stack, "files")
    filters = _threads(stack, "filters")
    background = Tasks()
    stack.push_async_callback(background.aclose)

    removal = OutputRemoval(state_dir, files)
    stack.push_async_callback(removal.aclose)

    def forget(agent_id: UUID) -> None:
        journal.remove_agent(agent_id)
        removal.remove(agent_id)

    registry = Registry(
        max_agents=config.max_agents,
        retain_agents=config.retain_agents,
        retain_secs=config.retain_secs,
        retain_bytes=config.state_limit_bytes // 2,  # the rest is for those that run
        on_dropped=lambda agent: forget(agent.id),
        spawns_known_secs=config.replay_secs if config.replay_bytes else 0.0,
    )
    publisher = Publisher(
        bound.publications,
        counters,
        server_id=identity.server_id,
        hang_up_heaviest=partial(bound.admission.hang_up_heaviest, PUBLICATIONS),
    )
    stack.callback(publisher.close, linger_ms=LINGER_MS)
    status_feed = StatusFeed(publisher, enabled=config.enable_status_updates)
    stack.callback(status_feed.close)
    log_feed = LogFeed(publisher, counters)
    stack.callback(log_feed.close)
    observer = AgentNews(registry, journal, status_feed, log_feed)
    keeper_news = KeeperNews(registry, journal, background, lambda reason: loss.lost(reason))
    keeper = await KeeperLink.open(
        state_dir.runtime,
        keeper_news,
        instance=state_dir.instance(journal.instance),
        keep=journal.keeps,
        agent_nofile=agent_nofile,
    )
    leaving = _Leaving(keeper, registry, config, state_dir)
    stack.push_async_callback(leaving.let_go)
    reserves = Reserves(config, state_dir.path, registry.output_bytes, lambda: registry.alive_count)
    health = Health(keeper, reserves, journal, accepting=lambda: handlers.accepting)
    loss = KeeperLoss(
        keeper,
        registry,
        health,
        keeper_news.agent_ended,
        ends_path=state_dir.runtime / ENDS_NAME,
    )
    stack.push_async_callback(loss.aclose)
    replay = Replay(config.replay_bytes, config.replay_secs, journal)
    longest_wait_secs = config.request_timeout_secs * _WAIT_MARGIN
    queries = Queries(files, filters, timeout_secs=longest_wait_secs)
    operations = Operations(
        keeper,
        actions,
        queries,
        journal,
        background,
        pub_endpoint=identity.pub_endpoint,
        stop_grace_secs=config.stop_grace_secs,
        longest_wait_secs=longest_wait_secs,
        releases=config.output_policy == "wait",
    )
    spawner = Spawner(
        config,
        backends,
        registry,
        keeper,
        reserves,
        health,
        state_dir,
        journal,
        observer,
        background,
        removal.remove,
    )
    recovery = Recovery(
        journal=journal,
        keeper=keeper,
        registry=registry,
        state_dir=state_dir,
        news=observer,
        log_feed=log_feed,
    )
    await _recover(recovery, keeper_news)
    handlers = Handlers(
        identity=identity,
        registry=registry,
        spawner=spawner,
        operations=operations,
        together=Together(keeper),
        actions=actions,
        queries=queries,
        health=health,
        counters=counters,
        request_timeout_secs=config.request_timeout_secs,
    )
    dispatcher = Dispatcher(
        handlers,
        registry=registry,
        replay=replay,
        journal=journal,
        counters=counters,
        server_id=identity.server_id,
    )
    quick = QuickReplies()
    status_replies = StatusReplies(registry, counters, quick)
    service, router = _serve(
        stack, config, dispatcher, status_replies, quick, bound.commands, counters
    )
    background.start(keep_house(config, identity, registry, replay, journal, keeper, status_feed))
    leaving.is_started = True
    return Parts(
        identity=identity,
        bound_pub_endpoint=bound.pub_endpoint,
        admission=bound.admission,
        registry=registry,
        keeper=keeper,
        operations=operations,
        handlers=handlers,
        service=service,
        router=router,
    )


async def _journal(
    stack: AsyncExitStack, config: ZmqServerConfig, state_dir: StateDir
) -> NoJournal:
    if not config.journal:
        return NoJournal()
    path = state_dir.path / JOURNAL_NAME
    journal = await in_thread(
        lambda: Journal.open(path, reply_bytes=config.replay_bytes), Journal.aclose
    )
    stack.push_async_callback(journal.aclose)
    return journal


async def _recover(recovery: Recovery, keeper_news: KeeperNews) -> None:
    """Bring the agents of an earlier server back before anything is asked about them."""
    ends = await recovery.run()
    keeper_news.begin(recovery.keeper)
    for end in ends:
        keeper_news.agent_ended(end)


@dataclass(slots=True)
class _Leaving:
    """Leaves the keeper and its agents to the next server, or ends both.

    Until the server ``is_started`` the agents are not its own to end: an error or a signal
    leaves them as they are.
    """

    keeper: KeeperLink
    registry: Registry
    config: ZmqServerConfig
    state_dir: StateDir
    is_started: bool = False

    async def let_go(self) -> None:
        has_agents = self.registry.alive_count > 0
        if self.is_started:
            leaves = self.config.keep_agents and has_agents
        else:
            leaves = has_agents or not self.keeper.is_new
        if leaves:
            self.keeper.detach()
        else:
            await self.keeper.aclose()
            await asyncio.to_thread(self.state_dir.remove_runtime)


def _threads(stack: AsyncExitStack, purpose: str) -> ThreadPoolExecutor:
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"descartes-fast-{purpose}")
    stack.push_async_callback(asyncio.to_thread, threads.shutdown, cancel_futures=True)
    return threads


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """The sockets of a server, and where they are."""

    admission: Admission
    commands: zmq.Socket[bytes]
    endpoint: str
    publications: zmq.Socket[bytes]
    pub_endpoint: str


async def _bind(stack: AsyncExitStack, config: ZmqServerConfig, counters: Counters) -> _Bound:
    """Claim and bind both endpoints; nothing is read from them yet."""
    wanted = [
        # In a thread: a host name may take the resolver's time.
        await asyncio.to_thread(checked_endpoint, endpoint, insecure=config.insecure)
        for endpoint in (config.endpoint, config.pub_endpoint)
    ]
    for endpoint in wanted:
        if endpoint.startswith("ipc://"):
            stack.callback(IpcClaim(endpoint).release)
    context = zmq.Context[zmq.Socket[bytes]](IO_THREADS)
    stack.push_async_callback(asyncio.to_thread, context.term)
    admission = Admission(context, config.max_clients, counters)
    stack.callback(admission.close)

    def bound(
        make: Callable[[zmq.Context[zmq.Socket[bytes]]], zmq.Socket[bytes]], name: str, at: str
    ) -> tuple[zmq.Socket[bytes], str]:
        socket = make(context)
        stack.callback(socket.close, linger=LINGER_MS)
        admission.watch(name, socket)
        return socket, bind(socket, at)

    commands, endpoint = bound(command_socket, COMMANDS, wanted[0])
    publications, pub_endpoint = bound(publishing_socket, PUBLICATIONS, wanted[1])
    return _Bound(
        admission=admission,
        commands=commands,
        endpoint=endpoint,
        publications=publications,
        pub_endpoint=pub_endpoint,
    )


def _serve(
    stack: AsyncExitStack,
    config: ZmqServerConfig,
    dispatcher: Dispatcher,
    status_replies: StatusReplies,
    quick: QuickReplies,
    commands: zmq.Socket[bytes],
    counters: Counters,
) -> tuple[Service, Router]:
    """Join dispatcher and command socket; from here on requests are taken."""

    def reply(envelope: Envelope, body: bytes) -> None:
        router.reply(envelope, body)

    service = Service(dispatcher, status_replies, reply)
    router = Router(
        commands,
        service.on_request,
        quick=quick,
        queue_bytes=config.client_queue_bytes,
        counters=counters,
    )
    stack.callback(router.close, linger_ms=LINGER_MS)
    stack.push_async_callback(service.aclose)
    return service, router
