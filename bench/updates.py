"""Status updates for a source to publish: the same facts in our wire format and in a peer's."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import msgpack

from descartes_fast import AgentStatus, StatusUpdate, StatusUpdateType, serialize_zmq_message

from .peers.messages import Update

__all__ = ["our_frames", "our_updates", "peer_frames", "peer_updates", "write_frames"]

_AGENTS = 1000
_NOW_NS = 1_763_000_000_123_456_789


def our_updates(count: int) -> Iterator[StatusUpdate]:
    """Yield changes of state of 1,000 agents in turn."""
    ids = [uuid.uuid4() for _ in range(_AGENTS)]
    for number in range(count):
        yield StatusUpdate(
            agent_id=ids[number % _AGENTS],
            update_type=StatusUpdateType.STATUS_CHANGED,
            status=AgentStatus.RUNNING,
            data={"seq": 1 + number // _AGENTS, "pid": 1000 + number % _AGENTS},
            timestamp=_NOW_NS + number,
        )


def peer_updates(count: int) -> Iterator[Update]:
    """Yield the same as a user's own dataclass."""
    ids = [str(uuid.uuid4()) for _ in range(_AGENTS)]
    for number in range(count):
        yield Update(
            agent_id=ids[number % _AGENTS],
            update_type="status_changed",
            status="running",
            message=None,
            data={"seq": 1 + number // _AGENTS, "pid": 1000 + number % _AGENTS},
            timestamp=_NOW_NS + number,
        )


def our_frames(count: int) -> Iterator[bytes]:
    """Yield what our server would publish: topic, NUL, message."""
    for update in our_updates(count):
        yield b"status/%b\0%b" % (str(update.agent_id).encode(), serialize_zmq_message(update))


def peer_frames(count: int) -> Iterator[bytes]:
    """Yield the same with a msgpack map as the message."""
    for update in peer_updates(count):
        yield b"status/%b\0%b" % (update.agent_id.encode(), msgpack.packb(asdict(update)))


def write_frames(path: Path, frames: Iterator[bytes]) -> None:
    """Write frames for the source in C: each after its length."""
    with path.open("wb") as file:
        for frame in frames:
            file.write(struct.pack("=I", len(frame)))
            file.write(frame)
