"""Coming to a keeper: the one that is there, renewed if it is of another build, or a new one."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import AgentError, CommunicationError, ShuttingDown
from .in_thread import in_thread
from .keeper.protocol import VERSION
from .keeper_connection import KeeperConnection
from .keeper_process import KeeperPlace, KeeperProcess

__all__ = ["Joined", "join_keeper"]

_log = logging.getLogger(__name__)

_HELLO_SECS = 5.0
_ENDING_SECS = 20.0  # a keeper that is ending takes its agents' graces for it
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


async def join_keeper(
    place: KeeperPlace,
    instance: str,
    keep: bool,
    on_event: Callable[[dict[str, Any]], None],
    on_lost: Callable[[KeeperConnection, str], None],
) -> Joined:
    """Connect to the keeper at ``place`` and greet it; start one if there is none.

    A keeper that does not answer is killed and replaced. ``on_event`` and ``on_lost`` are those of
    :class:`KeeperConnection`. Raises ``CommunicationError`` if there is none to be had.
    """
    may_renew = True
    for _ in range(_TRIES):
        process, peer, is_new = await _found_or_started(place, instance)
        connection = _connected(peer, on_event, on_lost)
        try:
            async with asyncio.timeout(_HELLO_SECS):
                words = await connection.ask(
                    "hello", version=VERSION, on_disconnect="keep" if keep else "end"
                )
                if may_renew and (words["version"], words["build"]) != (VERSION, place.build):
                    may_renew = False
                    if await _renewed(connection, place.command(words["instance"])):
                        process.close()
                        continue
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
            if words["version"] == VERSION:
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
    place: KeeperPlace, instance: str
) -> tuple[KeeperProcess, socket.socket, bool]:
    """Return a keeper, a connection to it, and whether it is a new one."""
    found = await in_thread(place.find, _let_go)
    if found is not None:
        return *found, False
    await _until_free(place)
    return *(await in_thread(lambda: place.start(instance), _end)), True


async def _until_free(place: KeeperPlace) -> None:
    if not await asyncio.to_thread(place.wait_until_free, _ENDING_SECS):
        raise CommunicationError(f"a keeper that does not answer holds {place.runtime_dir}")


def _connected(
    peer: socket.socket,
    on_event: Callable[[dict[str, Any]], None],
    on_lost: Callable[[KeeperConnection, str], None],
) -> KeeperConnection:
    connection = KeeperConnection(peer, on_event, lambda reason: on_lost(connection, reason))
    return connection


async def _renewed(connection: KeeperConnection, command: list[str]) -> bool:
    """Have the keeper replace its program; tell whether it did. The connection ends with that."""
    try:
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
