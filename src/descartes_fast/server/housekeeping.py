"""What a server does every ``status_update_interval_secs``."""

from __future__ import annotations

import asyncio
import contextlib

from ..config import ZmqServerConfig
from ..errors import AgentError
from .identity import ServerIdentity
from .journal import NoJournal
from .keeper_link import KeeperLink
from .registry import Registry
from .replay import Replay
from .status_feed import StatusFeed

__all__ = ["keep_house", "share_disk"]


async def keep_house(
    config: ZmqServerConfig,
    identity: ServerIdentity,
    registry: Registry,
    replay: Replay,
    journal: NoJournal,
    keeper: KeeperLink,
    status_feed: StatusFeed,
) -> None:
    """Publish the heartbeat, forget what is old, and share out the disk; for ever."""
    while True:
        with contextlib.suppress(AgentError):
            await share_disk(config, registry, keeper)
            await keeper.hold_missing_ends()
        await asyncio.sleep(config.status_update_interval_secs)
        status_feed.heartbeat(active_agents=registry.alive_count, uptime_secs=identity.uptime_secs)
        registry.expire()
        replay.expire()
        journal.look()


async def share_disk(config: ZmqServerConfig, registry: Registry, keeper: KeeperLink) -> None:
    """Tell the keeper what the output of the running agents may take together.

    That is what the ended ones leave, and a quarter in any case: what is retained must not cost
    what is still being read.
    """
    left = config.state_limit_bytes - registry.ended_output_bytes()
    await keeper.set_total_limit(max(left, config.state_limit_bytes // 4, 1))
