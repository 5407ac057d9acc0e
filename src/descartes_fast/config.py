"""Frozen configurations of client and server, and where their values come from.

In rising order: the defaults below, a TOML file (``[zmq_runner]`` for the client,
``[zmq_server]`` and ``[backends.NAME]`` for the server), the environment, arguments. The
environment's names are the field's in capitals after ``DESCARTES_FAST_`` for the client and
after ``DESCARTES_FAST_SERVE_`` for the server, so that what tells a client where its server is
does not move a server.
"""

from __future__ import annotations

import os
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from .config_checks import (
    check_endpoint,
    check_numbers,
    check_texts,
    check_types,
    expected,
    is_server_name,
    options_of,
)
from .errors import UsageError

__all__ = ["BackendConfig", "ZmqRunnerConfig", "ZmqServerConfig", "load_toml"]

_MIB = 1024 * 1024
_GIB = 1024 * _MIB

_TABLES = ("zmq_server", "zmq_runner", "backends")

MAX_GRACE_SECS = 3600.0
"""The longest that a stop waits before it kills."""

StdinPolicy = Literal["null", "pipe", "close-after-task"]
PausePolicy = Literal["forced", "cooperative"]
OutputPolicy = Literal["trim", "wait"]


class _Loadable:
    """A configuration that has a table in the file and names in the environment."""

    _table: ClassVar[str]
    _prefix: ClassVar[str]

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        **arguments: Any,
    ) -> Self:
        """Return a configuration from a TOML file, the environment and arguments.

        Arguments that are ``None`` do not count. Raises ``UsageError`` for a key that
        does not exist, a value of the wrong type, or a file that cannot be read.
        """
        document = load_toml(path) if path is not None else {}
        merged = cls._from_document(document)
        merged.update(
            _from_environment(cls, cls._prefix, os.environ if environ is None else environ)
        )
        merged.update({name: value for name, value in arguments.items() if value is not None})
        return cls(**merged)

    @classmethod
    def _from_document(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        return _checked_table(cls, cls._table, document.get(cls._table, {}))


@dataclass(frozen=True, kw_only=True)
class ZmqRunnerConfig(_Loadable):
    """How a client reaches a server.

    ``endpoint`` is the server's command endpoint. ``pub_endpoint`` overrides what the
    server announces for status and logs (useful behind a port forward). After
    ``max_reconnect_attempts * reconnect_delay_secs`` without a server, calls fail at
    once with ``CommunicationError`` until it is back. ``server_id``, if given, is the
    server that must answer.
    """

    _table = "zmq_runner"
    _prefix = "DESCARTES_FAST_"

    endpoint: str = "tcp://127.0.0.1:5555"
    pub_endpoint: str | None = None
    connection_timeout_secs: float = 30.0
    request_timeout_secs: float = 30.0
    auto_reconnect: bool = True
    max_reconnect_attempts: int = 3
    reconnect_delay_secs: float = 5.0
    enable_heartbeat: bool = True
    heartbeat_interval_secs: float = 30.0
    server_id: str | None = None

    def __post_init__(self) -> None:
        check_types(self)
        check_endpoint("endpoint", self.endpoint)
        check_endpoint("pub_endpoint", self.pub_endpoint)
        check_texts(self)
        check_numbers(
            self,
            above_zero={
                "connection_timeout_secs",
                "request_timeout_secs",
                "reconnect_delay_secs",
                "heartbeat_interval_secs",
            },
            endless={"connection_timeout_secs", "request_timeout_secs"},
            most={"reconnect_delay_secs": 86_400},
        )


@dataclass(frozen=True, kw_only=True)
class BackendConfig:
    """One ``[backends.NAME]`` table: how an ``AgentConfig`` becomes a process.

    ``command`` is an argv; no shell is involved. A word may hold the placeholders
    ``{task}``, ``{name}``, ``{model}``, ``{system_prompt}``, ``{context}``, ``{agents}`` (as JSON),
    ``{working_dir}``, or one as a TOML string (``{system_prompt:toml}``). A nested list is
    left out as a whole when a placeholder in it is empty. A word ``{tool_level}`` alone
    is replaced by the words of ``tool_levels`` for the level asked for, a word ``{argv}``
    alone by the words of the task: a JSON array of strings, or words quoted as for a shell.

    ``task`` says how the task reaches the agent: ``"argument"`` (the default), in the word
    that holds ``{task}``, or ``"stdin"``. A ``{task}`` in a nested list also goes by stdin when it
    is too long for an argument (over 124 KiB). ``prepend`` names what is put before the
    task, ``"system_prompt"`` or ``"context"``, for tools that have no other place for it.
    ``stdin`` is ``"null"``, ``"pipe"`` (open until a client closes it) or ``"close-after-task"``;
    the default is the last for a task that goes by stdin, else the first. ``model`` is the
    model where the client asks for none.

    ``environment`` names the variables passed on from the server beside a basic few
    (``PATH``, ``HOME``, the locale, proxies), ``set_environment`` gives fixed pairs,
    ``client_environment`` names what a client may set; a ``*`` may end a name. A client may
    ask for a directory below ``working_dir``, if there is one (metadata ``working_dir``).
    ``pause`` is what a pause is when the client does not say. ``limits`` are
    resource limits by their names in ``getrlimit(2)`` without ``RLIMIT_``, in lower case
    (``{"nofile": 1024, "as": 4294967296}``). Fields that are ``None`` keep the built-in
    backend's value, or the default of a new one.
    """

    enabled: bool | None = None
    command: tuple[str | tuple[str, ...], ...] | None = None
    task: Literal["argument", "stdin"] | None = None
    prepend: tuple[Literal["system_prompt", "context"], ...] | None = None
    stdin: StdinPolicy | None = None
    pause: PausePolicy | None = None
    environment: tuple[str, ...] | None = None
    set_environment: Mapping[str, str] | None = None
    client_environment: tuple[str, ...] | None = None
    working_dir: str | None = None
    model: str | None = None
    tool_levels: Mapping[str, tuple[str, ...]] | None = None
    limits: Mapping[str, int] | None = None
    stop_grace_secs: float | None = None

    def __post_init__(self) -> None:
        check_types(self)
        check_texts(self)
        check_numbers(self, most={"stop_grace_secs": MAX_GRACE_SECS})
        if self.command is not None and (not self.command or not isinstance(self.command[0], str)):
            raise UsageError("a backend's command must begin with the program's name")

    @classmethod
    def from_table(cls, name: str, table: Mapping[str, Any]) -> Self:
        """Return the backend that a TOML table describes. Raises ``UsageError``."""
        return cls(**_checked_table(cls, f"backends.{name}", table))


@dataclass(frozen=True, kw_only=True)
class ZmqServerConfig(_Loadable):
    """What a server binds, allows and keeps.

    ``endpoint`` takes commands, ``pub_endpoint`` publishes status and logs;
    ``advertise_pub`` is the publishing endpoint told to clients where it differs from the
    bound one. Anything but loopback and ``ipc://`` needs ``insecure``.

    ``state_dir`` (default ``$XDG_STATE_HOME/descartes-fast``) holds the agents' output.
    A stream keeps ``output_limit_bytes``; at the limit its oldest bytes are trimmed
    (``output_policy="trim"``) or the agent waits until they are read (``"wait"``). Spawns
    are refused when the state directory is over ``state_limit_bytes``, or free disk space
    or file descriptors are below their reserves. Ended agents stay listed and readable:
    the last ``retain_agents``, for ``retain_secs``, the oldest of them only as long as their
    output takes no more than half of ``state_limit_bytes``.

    With ``journal`` the state directory also holds what a server needs to go on where an
    earlier one ended: its agents, which outlive a crash, and its replies. ``keep_agents``
    lets them outlive an orderly end too. ``journal_environment`` stores the values of the
    environment that clients give their agents; else only the names are.
    """

    _table = "zmq_server"
    _prefix = "DESCARTES_FAST_SERVE_"

    endpoint: str = "tcp://127.0.0.1:5555"
    pub_endpoint: str = "tcp://127.0.0.1:5556"
    advertise_pub: str | None = None
    insecure: bool = False
    server_id: str | None = None
    max_agents: int = 1000
    status_update_interval_secs: float = 10.0
    enable_status_updates: bool = True
    request_timeout_secs: float = 30.0
    stop_grace_secs: float = 5.0
    state_dir: str | None = None
    output_limit_bytes: int = 64 * _MIB
    output_policy: OutputPolicy = "trim"
    state_limit_bytes: int = 16 * _GIB
    disk_reserve_bytes: int = 256 * _MIB
    fd_reserve: int = 64
    retain_agents: int = 1000
    retain_secs: float = 86_400.0
    max_clients: int = 4096
    client_queue_bytes: int = 32 * _MIB
    replay_bytes: int = 32 * _MIB
    replay_secs: float = 600.0
    journal: bool = True
    keep_agents: bool = False
    journal_environment: bool = False
    backends: Mapping[str, BackendConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self)
        check_endpoint("endpoint", self.endpoint)
        check_endpoint("pub_endpoint", self.pub_endpoint)
        check_endpoint("advertise_pub", self.advertise_pub)
        check_texts(self)
        if self.server_id is not None and not is_server_name(self.server_id):
            raise UsageError("server_id must be 1 to 255 printable characters")
        if self.keep_agents and not self.journal:
            raise UsageError("keep_agents needs the journal: without it nobody knows them again")
        check_numbers(
            self,
            above_zero={
                "max_agents",
                "status_update_interval_secs",
                "request_timeout_secs",
                "output_limit_bytes",
                "state_limit_bytes",
                "max_clients",
                "client_queue_bytes",
            },
            most={"stop_grace_secs": MAX_GRACE_SECS},
        )

    @classmethod
    def _from_document(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        settings = super()._from_document(document)
        if "backends" in settings:
            raise UsageError("backends are tables of their own: [backends.NAME]")
        tables = document.get("backends", {})
        if not isinstance(tables, dict):
            raise UsageError("backends must be tables: [backends.NAME]")
        settings["backends"] = {
            name: BackendConfig.from_table(name, entry) for name, entry in tables.items()
        }
        return settings

    def state_path(self, environ: Mapping[str, str] | None = None) -> Path:
        """Return the state directory: ``state_dir``, else the XDG state home's."""
        if self.state_dir is not None:
            return Path(self.state_dir).expanduser().absolute()
        home = (os.environ if environ is None else environ).get("XDG_STATE_HOME")
        base = Path(home) if home else Path("~/.local/state").expanduser()
        return base / "descartes-fast"


def load_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a TOML file's tables.

    Raises ``UsageError`` if it cannot be read or parsed, or has a table that nobody reads.
    """
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise UsageError(
            f"cannot read the configuration {os.fspath(path)}: {error.strerror}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the configuration {os.fspath(path)} is not TOML: {error}") from None
    for name in document:
        if name not in _TABLES:
            raise UsageError(
                f"the configuration {os.fspath(path)} has no use for [{name}]; "
                "there are [zmq_server], [zmq_runner] and [backends.NAME]"
            )
    return document


def _checked_table(cls: type, table_name: str, table: Any) -> dict[str, Any]:
    """Check a TOML table's keys against a configuration's fields; arrays become tuples."""
    if not isinstance(table, Mapping):
        raise UsageError(f"[{table_name}] must be a table")
    known = {entry.name for entry in fields(cls)}
    for key in table:
        if key not in known:
            raise UsageError(f"[{table_name}] has no setting {key!r}")
    return {key: _frozen(value) for key, value in table.items()}


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(entry) for entry in value)
    if isinstance(value, dict):
        return {key: _frozen(entry) for key, entry in value.items()}
    return value


def _from_environment(cls: type, prefix: str, environ: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    hints = typing.get_type_hints(cls)
    for entry in fields(cls):
        variable = prefix + entry.name.upper()
        text = environ.get(variable)
        if text is not None and entry.name != "backends":
            found[entry.name] = _parsed(variable, hints[entry.name], text)
    return found


def _parsed(variable: str, hint: Any, text: str) -> Any:
    options = options_of(hint)
    try:
        if bool in options:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
                text.strip().lower()
            ]
        if int in options:
            return int(text)
        if float in options:
            return float(text)
    except (ValueError, KeyError):
        raise UsageError(f"{variable} must be {expected(hint)}, not {text!r}") from None
    return text
