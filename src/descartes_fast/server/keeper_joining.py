"""Coming to a keeper: the one that is there, renewed if it is of another build, or a new one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import AgentError, CommunicationError, ShuttingDown, UsageError
from .in_thread import in_thread
from .keeper.protocol import VERSION
from .keeper_connection import KeeperConnection
from .keeper_messages import KnownAgent
from .keeper_process import KeeperPlace, KeeperProcess

__all__ = ["Joined", "Wanted", "join_keeper"]

_log = logging.getLogger(__name__)

_WAKE_SECS = 1.0  # a stopped one is continued then
_HELLO_SECS = 30.0  # of a busy machine; a keeper that is killed costs its agents their pipes
_RENEWAL_SECS = 60.0  # it tries the new program before it becomes that
_ENDING_SECS = 20.0  # a keeper that is ending takes its agents' graces for it
_TICK_SECS = 0.02
_TRIES = 4  # one may be about to end, or hang, and one may be renewed

_Found = tuple[KeeperProcess, socket.socket]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A keeper that has answered, and what the agents of its state directory are marked with.

    ``is_new``: it was started for this, and knows no agent.
    """

    process: KeeperProcess
    connection: KeeperConnection
    instance: str
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a keeper is to be. With no ``instance`` one that is there may have any.

    ``keep``: it and its agents outlive the connection.
    """

    instance: str | None
    keep: bool


async def join_keeper(
    place: KeeperPlace,
    wanted: Wanted,
    hold: Callable[[KeeperConnection], Awaitable[list[KnownAgent]]],
    on_event: Callable[[dict[str, Any]], None],
    on_lost: Callable[[KeeperConnection, str], None],
) -> Joined:
    """Connect to the keeper at ``place`` and greet it; start one if there is none.

    One that does not answer is continued, in case it is stopped, and killed and replaced in the
    end. ``hold`` takes duplicates of all pipes of a keeper that is to be renewed, as the new
    program may fail. ``on_event`` and ``on_lost`` are those of :class:`KeeperConnection`.

    Raises ``UsageError`` if the keeper has agents of another instance, which run on, and
    ``CommunicationError`` if there is none to be had.
    """
    may_renew = True
    for _ in range(_TRIES):
        process, peer, is_new = await _found_or_started(place, wanted)
        connection = _connected(peer, on_event, on_lost)
        try:
            words = await _greeted(process, connection, keep=wanted.keep or not is_new)
            is_known = words["version"] == VERSION
            renews = may_renew and not (is_known and words["build"] == place.build)
            is_ours = wanted.instance in (None, words["instance"])
            if is_known and (renews or not is_ours):
                async with _patience(process, _HELLO_SECS):
                    known = await hold(connection)
                if not is_ours:
                    _refuse_agents(known, place)
                    await connection.ask("end", grace_secs=0.0)
                    raise ShuttingDown("it was of another instance and had no agents")
            if renews:
                may_renew = False
                if await _renewed(process, connection, place.command(words["instance"])):
                    process.close()
                    continue
            if is_known and not (wanted.keep or is_new):
                await _greeted(process, connection, keep=False)
        except (CommunicationError, ShuttingDown):  # it is about to end
            connection.close()
            process.close()
            await _until_free(place)
        except TimeoutError:
            _log.error("the keeper %d does not answer and is killed", process.pid)
            await _kill(process, connection)
        except BaseException:
            if is_new:
                await _kill(process, connection)
            connection.close()
            process.close()
            raise
        else:
            if is_known:
                return Joined(
                    process=process,
                    connection=connection,
                    instance=words["instance"],
                    is_new=is_new,
                )
            connection.close()
            process.close()
            raise CommunicationError(
                f"the keeper {words['pid']} speaks version {words['version']}, not {VERSION}, and "
                "cannot be renewed: end its agents with the version that started it"
            )
    raise CommunicationError(f"the keeper does not answer; see {place.log_path}")


async def _found_or_started(
    place: KeeperPlace, wanted: Wanted
) -> tuple[KeeperProcess, socket.socket, bool]:
    """Return a keeper, a connection to it, and whether it is a new one."""
    give_up_at = time.monotonic() + _ENDING_SECS
    while True:
        found = await in_thread(place.find, _let_go)
        if found is not None:
            return *found, False
        if await asyncio.to_thread(place.wait_until_free, 0):
            start = partial(place.start, wanted.instance or secrets.token_hex(8))
            return *(await in_thread(start, _end)), True
        if time.monotonic() >= give_up_at:
            raise CommunicationError(
                f"{place.holder()} holds {place.runtime_dir} and does not listen at "
                f"{place.socket_path.name} there; was that file removed?"
            )
        await asyncio.sleep(_TICK_SECS)


async def _until_free(place: KeeperPlace) -> None:
    if not await asyncio.to_thread(place.wait_until_free, _ENDING_SECS):
        raise CommunicationError(
            f"{place.holder()} holds {place.runtime_dir} and does not speak to this server"
        )


@contextlib.asynccontextmanager
async def _patience(process: KeeperProcess, secs: float) -> AsyncIterator[None]:
    """Raise ``TimeoutError`` after ``secs``; a keeper that is stopped is continued before."""
    waking = asyncio.get_running_loop().call_later(_WAKE_SECS, process.wake)
    try:
        async with asyncio.timeout(secs):
            yield
    finally:
        waking.cancel()


async def _greeted(
    process: KeeperProcess, connection: KeeperConnection, *, keep: bool
) -> dict[str, Any]:
    async with _patience(process, _HELLO_SECS):
        return await connection.ask(
            "hello", version=VERSION, on_disconnect="keep" if keep else "end"
        )


def _refuse_agents(known: list[KnownAgent], place: KeeperPlace) -> None:
    """Raise ``UsageError`` if a keeper of another instance has agents that have not ended."""
    alive = sum(agent.ended is None for agent in known)
    if alive:
        raise UsageError(
            f"{place.holder()}, the keeper in {place.runtime_dir}, has {alive} agents that are not "
            "in this journal: it was removed or replaced, or is switched off. Put it back, or "
            "end them with `descartes-fast state stop`"
        )


def _connected(
    peer: socket.socket,
    on_event: Callable[[dict[str, Any]], None],
    on_lost: Callable[[KeeperConnection, str], None],
) -> KeeperConnection:
    connection = KeeperConnection(peer, on_event, lambda reason: on_lost(connection, reason))
    return connection


async def _renewed(
    process: KeeperProcess, connection: KeeperConnection, command: list[str]
) -> bool:
    """Have the keeper replace its program; tell whether it did. The connection ends with that."""
    try:
        async with _patience(process, _RENEWAL_SECS):
            await connection.ask("renew", argv=command)
    except CommunicationError:
        return True
    except AgentError as error:
        _log.warning("the keeper goes on with the program of another build: %s", error)
    return False


async def _kill(process: KeeperProcess, connection: KeeperConnection) -> None:
    connection.close()
    process.kill()
    await asyncio.to_thread(process.reap)


async def _let_go(found: _Found | None) -> None:
    if found is not None:
        found[1].close()
        found[0].close()


async def _end(found: _Found) -> None:
    found[1].close()
    found[0].kill()
    await asyncio.to_thread(found[0].reap)
