"""Backends: an ``AgentConfig`` becomes an argv, an environment and a policy for stdin."""

from __future__ import annotations

import json
import os
import resource
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID

from .._core.ids import id_text
from ..config import BackendConfig, PausePolicy, StdinPolicy
from ..errors import AccessDenied, InvalidContext, Unsupported, UsageError
from .builtin_backends import ALIASES, BUILTIN_BACKENDS
from .environment import (
    BASE_ENVIRONMENT,
    CLIENT_ENVIRONMENT,
    NamePatterns,
    check_client_environment,
)
from .exec_limits import STRING_LIMIT_BYTES, check_exec_limits
from .templates import CommandTemplate

if TYPE_CHECKING:
    from .._core import AgentConfig

__all__ = ["Backends", "LaunchPlan"]

_NAME_LIMIT = 256
# A longer task goes by stdin where it can: the limit of an argument, less room for what the
# operator wrote around it ("--task=").
_TASK_ARGUMENT_BYTES = STRING_LIMIT_BYTES - 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """All it takes to start one agent's process."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str | None = None
    stdin: StdinPolicy = "null"
    stdin_data: bytes = field(default=b"", repr=False)
    pause: PausePolicy = "forced"
    limits: Mapping[str, int]
    stop_grace_secs: float | None = None


class Backends:
    """The backends of one server.

    ``tables`` are the configuration's ``[backends.NAME]``: a table named like a built-in one
    changes only the keys it gives. ``environ`` is the environment that agents' variables
    are chosen from; it is looked at once, here.

    Raises ``UsageError`` for a table that makes no backend.
    """

    def __init__(
        self, tables: Mapping[str, BackendConfig], environ: Mapping[str, str] = os.environ
    ) -> None:
        configs = dict(BUILTIN_BACKENDS)
        for name, table in tables.items():
            canonical = ALIASES.get(name, name)
            if canonical != name and canonical in tables:
                raise UsageError(f"backends {name!r} and {canonical!r} are one: give one table")
            configs[canonical] = _merged(configs.get(canonical), table)
        self._backends = {
            name: _Backend(name, config, environ)
            for name, config in configs.items()
            if config.enabled is not False
        }
        for alias, name in ALIASES.items():
            if name in self._backends:
                self._backends[alias] = self._backends[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The names a client may use, aliases among them, sorted."""
        return tuple(sorted(self._backends))

    def plan(
        self,
        config: AgentConfig,
        agent_id: UUID,
        metadata: Mapping[str, str] | None = None,
    ) -> LaunchPlan:
        """Return what starts the agent that ``config`` describes.

        ``metadata["working_dir"]``, if given, is a directory below the backend's own
        ``working_dir`` to start in; other metadata is the client's own.

        Raises ``InvalidContext`` for a configuration that cannot be a process, ``Unsupported``
        for one that asks for what the backend's tool does not have, ``AccessDenied`` for
        a variable or a directory that a client may not choose.
        """
        _check_texts(config)
        backend = self._backends.get(config.model_backend)
        if backend is None:
            raise InvalidContext(
                f"backend {_shown(config.model_backend)} is not known or not enabled here; "
                f"enabled: {', '.join(self.names) or 'none'}"
            )
        return backend.plan(config, agent_id, metadata or {})


class _Backend:
    """One backend: its configuration, made ready."""

    def __init__(self, name: str, config: BackendConfig, environ: Mapping[str, str]) -> None:
        if config.command is None:
            raise UsageError(f"backend {name!r} has no command")
        self._name = name
        self._template = CommandTemplate(name, config.command)
        mentioned = self._template.required | self._template.optional
        self._task_by = config.task or "argument"
        if self._task_by == "stdin" and not {"task", "argv"}.isdisjoint(
            self._template.required | self._template.expanding
        ):
            raise UsageError(
                f'backend {name!r}: its command takes the task, so task must be "argument"'
            )
        self._stdin: StdinPolicy = config.stdin or (
            "close-after-task" if self._task_by == "stdin" else "null"
        )
        if self._task_by == "stdin" and self._stdin == "null":
            raise UsageError(f'backend {name!r} takes the task from stdin, so stdin is not "null"')
        self._model = config.model or ""
        self._takes_model = "model" in mentioned
        if self._model and not self._takes_model:
            raise UsageError(f"backend {name!r} has a model, but its command no {{model}}")
        self._takes_agents = "agents" in mentioned
        self._tool_levels = {
            _level_key(level): words for level, words in (config.tool_levels or {}).items()
        }
        if self._tool_levels and "tool_level" not in self._template.expanding:
            raise UsageError(f"backend {name!r} has tool_levels, but its command no {{tool_level}}")
        self._prepend = config.prepend or ()
        self._environment = _operators_environment(config, environ)
        self._client_environment = NamePatterns(
            CLIENT_ENVIRONMENT if config.client_environment is None else config.client_environment
        )
        self._working_dir = _operators_directory(config.working_dir)
        self._pause: PausePolicy = config.pause or "forced"
        self._limits = _checked_limits(name, config.limits or {})
        self._stop_grace_secs = config.stop_grace_secs

    def plan(self, config: AgentConfig, agent_id: UUID, metadata: Mapping[str, str]) -> LaunchPlan:
        cwd = self._directory(metadata.get("working_dir"))
        environment = self._environment_of(config, agent_id)
        task = self._prompt(config)
        by_stdin = self._task_by == "stdin" or (
            "task" in self._template.optional and len(os.fsencode(task)) > _TASK_ARGUMENT_BYTES
        )
        values = {
            "agents": self._agents(config),
            "context": config.context or "",
            "model": self._model_of(config),
            "name": config.name,
            "system_prompt": config.system_prompt or "",
            "task": "" if by_stdin else task,
            "working_dir": cwd or "",
        }
        expansions = {"tool_level": self._tool_words(config), "argv": self._task_words(task)}
        if by_stdin and not config.task.strip() and self._stdin != "pipe":
            raise InvalidContext(f"backend {self._name!r} needs a task")
        argv = self._template.fill(values, expansions)
        check_exec_limits(argv, environment)
        stdin, stdin_data = self._stdin, b""
        if by_stdin:
            stdin = "close-after-task" if self._task_by == "argument" else self._stdin
            stdin_data = os.fsencode(task)
            if stdin == "pipe" and task and not task.endswith("\n"):
                stdin_data += b"\n"  # The pipe stays open: only a line's end ends the task.
        return LaunchPlan(
            argv=argv,
            environment=environment,
            cwd=cwd,
            stdin=stdin,
            stdin_data=stdin_data,
            pause=self._pause,
            limits=self._limits,
            stop_grace_secs=self._stop_grace_secs,
        )

    def _prompt(self, config: AgentConfig) -> str:
        """Return the task, behind what the tool takes in no other way."""
        parts = [getattr(config, name) for name in self._prepend]
        return "\n\n".join([part for part in parts if part] + [config.task])

    def _model_of(self, config: AgentConfig) -> str:
        if config.model and not self._takes_model:
            raise Unsupported(f"backend {self._name!r} lets no client choose the model")
        return config.model or self._model

    def _agents(self, config: AgentConfig) -> str:
        if not config.agents:
            return ""
        if not self._takes_agents:
            raise Unsupported(f"backend {self._name!r} has no sub-agents")
        return json.dumps(config.agents, ensure_ascii=False, separators=(",", ":"))

    def _tool_words(self, config: AgentConfig) -> Sequence[str]:
        if not config.tool_level:
            return ()
        words = self._tool_levels.get(_level_key(config.tool_level))
        if words is None:
            raise Unsupported(
                f"backend {self._name!r} has no tool level {_shown(config.tool_level)}; "
                f"it has: {', '.join(sorted(self._tool_levels)) or 'none'}"
            )
        return words

    def _task_words(self, task: str) -> Sequence[str]:
        """Return the words of a task that is an argv: a JSON array, or quoted as for a shell."""
        if "argv" not in self._template.expanding:
            return ()
        try:
            words = json.loads(task) if task.lstrip().startswith("[") else shlex.split(task)
        except (ValueError, RecursionError) as error:
            raise InvalidContext(f"the task is not an argv: {error}") from None
        if not words or not all(isinstance(word, str) for word in words) or not words[0]:
            raise InvalidContext("the task must name a program: an argv of one word or more")
        if any("\0" in word for word in words):
            raise InvalidContext("the task's argv holds a NUL")
        return list(words)

    def _environment_of(self, config: AgentConfig, agent_id: UUID) -> dict[str, str]:
        check_client_environment(self._name, self._client_environment, config.environment)
        environment = {**self._environment, **config.environment}
        if config.context:
            environment["AGENT_CONTEXT"] = config.context
        if config.system_prompt:
            environment["AGENT_SYSTEM_PROMPT"] = config.system_prompt
        environment["DESCARTES_AGENT_ID"] = id_text(agent_id)
        environment["DESCARTES_AGENT_NAME"] = config.name
        return environment

    def _directory(self, wanted: str | None) -> str | None:
        if not wanted:
            return self._working_dir
        if "\0" in wanted or ".." in PurePath(wanted).parts or len(wanted) > 4096:
            raise InvalidContext(f"the working directory {_shown(wanted)} is not a plain path")
        if self._working_dir is None:
            raise AccessDenied(f"backend {self._name!r} lets no client choose a working directory")
        # Resolved, so that no symbolic link leads out; the agent gets the resolved path.
        base = os.path.realpath(self._working_dir)
        directory = os.path.realpath(os.path.join(base, wanted))
        if os.path.commonpath([base, directory]) != base:
            raise AccessDenied(
                f"the working directory {_shown(wanted)} is outside of backend {self._name!r}'s"
            )
        return directory


def _merged(base: BackendConfig | None, table: BackendConfig) -> BackendConfig:
    """Return ``base`` with the keys that ``table`` gives."""
    if base is None:
        return table
    merged: dict[str, Any] = {
        entry.name: getattr(base, entry.name)
        if getattr(table, entry.name) is None
        else getattr(table, entry.name)
        for entry in fields(BackendConfig)
    }
    return BackendConfig(**merged)


def _operators_environment(config: BackendConfig, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what an agent's environment begins with, before anything from a client."""
    passed_on = NamePatterns((*BASE_ENVIRONMENT, *(config.environment or ())))
    fixed = dict(config.set_environment or {})
    for name, value in fixed.items():
        if not name or "=" in name or "\0" in name + value:
            raise UsageError(f"set_environment: {name!r} cannot be an environment variable")
    return passed_on.chosen_from(environ) | fixed


def _operators_directory(working_dir: str | None) -> str | None:
    return None if working_dir is None else str(Path(working_dir).expanduser().absolute())


def _checked_limits(backend: str, limits: Mapping[str, int]) -> Mapping[str, int]:
    for name, value in limits.items():
        if not name.islower() or not hasattr(resource, f"RLIMIT_{name.upper()}"):
            raise UsageError(f"backend {backend!r}: there is no resource limit {name!r}")
        if not 0 <= value < 2**63:
            wrong = "not be negative" if value < 0 else "be below 2^63"
            raise UsageError(f"backend {backend!r}: the limit {name!r} must {wrong}")
    return dict(limits)


def _level_key(level: str) -> str:
    """Return a tool level's one spelling: the original takes ``read-only`` and ``read_only``."""
    return level.lower().replace("-", "").replace("_", "")


_TEXTS = ("name", "model_backend", "task", "context", "system_prompt", "model", "tool_level")
_texts_of = attrgetter(*_TEXTS)


def _check_texts(config: AgentConfig) -> None:
    """Refuse texts that no process can be given, and names that would deceive a reader."""
    for name, text in zip(_TEXTS, _texts_of(config), strict=True):
        if text and "\0" in text:
            raise InvalidContext(f"the agent's {name} holds a NUL")
    if len(config.name) > _NAME_LIMIT or not config.name.isprintable():
        raise InvalidContext(
            f"an agent's name has at most {_NAME_LIMIT} printable characters, "
            f"not {_shown(config.name)}"
        )
    if ".." in config.name.split("/"):
        raise InvalidContext(f"the agent's name {_shown(config.name)} has '..' as a part")


def _shown(text: str) -> str:
    """Return ``text`` quoted for an error message, shortened."""
    return repr(text) if len(text) <= 80 else f"{text[:80]!r}..."
