"""Our server, embedded, publishing updates as fast as its subscribers acknowledge them.

They take the way of every change of state, from the feed on that asks an agent for its update;
only that no process changes its state so often. Each byte on stdin allows some more.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile

import uvloop

from descartes_fast import StatusUpdate, ZmqServerConfig
from descartes_fast._core.ids import id_text
from descartes_fast.server import ZmqAgentServer, assembly
from descartes_fast.server.publisher import Publisher
from descartes_fast.server.status_feed import StatusFeed

from ..updates import our_updates

CREDIT = 125
# Half of what is queued for a subscriber before updates are dropped: libzmq tells the sender
# of room by halves of the high-water mark.
WINDOW = 500


class Changed:
    """What the feed asks of an agent whose state has changed."""

    def __init__(self, update: StatusUpdate) -> None:
        self.id_text = id_text(update.agent_id)
        self._update = update

    def status_update(self) -> StatusUpdate:
        known = self._update
        return StatusUpdate(
            agent_id=known.agent_id,
            update_type=known.update_type,
            status=known.status,
            data=known.data,
            timestamp=known.timestamp,
        )


async def serve(count: int) -> None:
    feeds: list[StatusFeed] = []

    class Feed(StatusFeed):
        def __init__(self, publisher: Publisher, *, enabled: bool) -> None:
            super().__init__(publisher, enabled=enabled)
            feeds.append(self)

    # There is no way to a running server's feed from outside, and no need but this one's.
    assembly.__dict__["StatusFeed"] = Feed
    with tempfile.TemporaryDirectory(prefix="dfast-bench-") as folder:
        config = ZmqServerConfig(
            endpoint="tcp://127.0.0.1:0",
            pub_endpoint="tcp://127.0.0.1:0",
            state_dir=folder,
            status_update_interval_secs=3600,  # the server's own heartbeats would be counted
        )
        agents = [Changed(update) for update in our_updates(count)]
        async with ZmqAgentServer(config) as server:
            print(server.endpoint, flush=True)
            ended = asyncio.Event()
            allowed = 0
            position = count

            def publish() -> None:
                nonlocal position, allowed
                now = min(allowed, count - position, CREDIT)
                for agent in agents[position : position + now]:
                    feeds[0].state_changed(agent)  # type: ignore[arg-type]
                position += now
                allowed -= now
                if allowed and position < count:
                    loop.call_soon(publish)

            def read_orders() -> None:
                nonlocal position, allowed
                orders = os.read(0, 4096)
                if not orders:
                    ended.set()
                if b"g" in orders:
                    position, allowed = 0, WINDOW
                allowed += CREDIT * orders.count(b".")
                publish()

            loop = asyncio.get_running_loop()
            loop.add_reader(0, read_orders)
            await ended.wait()
            loop.remove_reader(0)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
