"""Where the server is, a client connected to it, and agents by the beginnings of their ids."""

from __future__ import annotations

import dataclasses
import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from .._core import AgentInfo
from ..client import ZmqClient
from ..config import ZmqRunnerConfig
from ..errors import NotFound, UsageError
from .arguments import seconds

__all__ = ["add_connection_options", "config_path", "connected", "find", "find_all"]

_CONNECT_SECS = 5.0  # the library's 30 are for programs; a person waits for an answer
_IDS_TOLD = 3  # of those that a beginning fits


def add_connection_options(parser: ArgumentParser, *, default: object) -> None:
    """Add the options that say where the server is.

    They stand before the command or after it; ``default`` is ``argparse.SUPPRESS`` for the
    latter, so that it does not undo the former.
    """
    group = parser.add_argument_group("connection")
    group.add_argument(
        "--endpoint",
        metavar="URL",
        default=default,
        help="the server's command endpoint (else DESCARTES_FAST_ENDPOINT, else the "
        "configuration file's, else tcp://127.0.0.1:5555)",
    )
    group.add_argument(
        "--config",
        metavar="FILE",
        default=default,
        help="configuration file (else DESCARTES_FAST_CONFIG, else "
        "~/.config/descartes-fast/config.toml if there is one)",
    )
    group.add_argument(
        "--timeout",
        metavar="SECS",
        type=seconds,
        default=default,
        help="how long to wait for a connection (5) and for an answer (30)",
    )


def config_path(arguments: Namespace) -> Path | None:
    """Return the configuration file to read, if any."""
    named = arguments.config or os.environ.get("DESCARTES_FAST_CONFIG")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME")
    folder = Path(home) if home else Path("~/.config").expanduser()
    usual = folder / "descartes-fast" / "config.toml"
    return usual if usual.is_file() else None


def runner_config(arguments: Namespace) -> ZmqRunnerConfig:
    """Return the client's configuration from file, environment and options."""
    config = ZmqRunnerConfig.load(
        config_path(arguments),
        endpoint=arguments.endpoint,
        connection_timeout_secs=arguments.timeout,
        request_timeout_secs=arguments.timeout,
    )
    if config.connection_timeout_secs == ZmqRunnerConfig.connection_timeout_secs:
        config = dataclasses.replace(config, connection_timeout_secs=_CONNECT_SECS)
    return config


@asynccontextmanager
async def connected(arguments: Namespace) -> AsyncIterator[ZmqClient]:
    """Yield a client connected to the server that the options name."""
    client = ZmqClient(runner_config(arguments))
    try:
        await client.connect()
        yield client
    finally:
        await client.disconnect()


async def find(client: ZmqClient, text: str) -> UUID:
    """Return the one agent whose id begins with ``text``.

    Raises ``NotFound`` where no agent's or more than one agent's does, and ``UsageError``
    for what cannot begin an id.
    """
    return (await find_all(client, [text]))[0]


async def find_all(client: ZmqClient, texts: Sequence[str]) -> list[UUID]:
    """Return the agents whose ids begin with each of ``texts``, asking the server once."""
    wanted = [_checked(text) for text in texts]
    known: list[AgentInfo] = []
    if any(len(digits) < 32 for digits in wanted):
        known = await client.list_remote_agents()
    return [_only(text, digits, known) for text, digits in zip(texts, wanted, strict=True)]


def _checked(text: str) -> str:
    digits = text.strip().lower().replace("-", "")
    if not re.fullmatch("[0-9a-f]{1,32}", digits):
        raise UsageError(f"{text!r} is not an agent's id, nor the beginning of one")
    return digits


def _only(text: str, digits: str, known: Sequence[AgentInfo]) -> UUID:
    if len(digits) == 32:
        return UUID(digits)
    found = [info.id for info in known if info.id.hex.startswith(digits)]
    if not found:
        raise NotFound(f"no agent's id begins with {text}")
    if len(found) > 1:
        some = [str(agent_id)[: max(13, len(text) + 4)] for agent_id in found[:_IDS_TOLD]]
        if len(found) > len(some):
            some.append("...")
        raise NotFound(f"{text} begins the ids of {len(found)} agents: {', '.join(some)}")
    return found[0]
