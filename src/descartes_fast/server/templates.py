"""A backend's command, parsed once and filled in for each agent; never a shell, never a flag.

Text from a client fills placeholders inside words that the operator wrote. It cannot
add words (only ``{argv}`` may, and only where the operator put it), and it cannot be taken
for a flag: a word that begins with a client's text and with ``-`` is refused unless a
word ``--`` of the operator's comes before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InvalidContext, UsageError

__all__ = ["PLACEHOLDERS", "CommandTemplate"]

PLACEHOLDERS = frozenset(
    {"agents", "context", "model", "name", "system_prompt", "task", "working_dir"}
)
"""What a word of a command may hold, as ``{name}`` or, as a TOML string, ``{name:toml}``."""

_EXPANDING = frozenset({"argv", "tool_level"})
"""What a word may be as a whole, and become any number of words."""

# Only what looks like a placeholder is one: a JSON text in a command stays as it is.
_PLACEHOLDER = re.compile(r"\{([a-z_]+)(?::([a-z]+))?\}")


def _toml_string(text: str) -> str:
    """Return ``text`` as a TOML basic string. JSON's escapes are TOML's, except for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


_FORMS: Mapping[str | None, Callable[[str], str]] = {None: str, "toml": _toml_string}


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str
    form: str | None


@dataclass(frozen=True, slots=True)
class _Word:
    """One word of a command: its parts in order, or the name of what it expands to."""

    parts: tuple[str | _Slot, ...]
    expands: str | None

    @property
    def names(self) -> frozenset[str]:
        return frozenset(part.name for part in self.parts if isinstance(part, _Slot))

    def fill(self, values: Mapping[str, str]) -> str:
        return "".join(
            part if isinstance(part, str) else _FORMS[part.form](values[part.name])
            for part in self.parts
        )


@dataclass(frozen=True, slots=True)
class _Group:
    """Words that stay or go together; a word of its own is a group that must stay."""

    words: tuple[_Word, ...]
    optional: bool
    names: frozenset[str]


class CommandTemplate:
    """The ``command`` of one backend.

    ``backend`` is its name, for errors. Raises ``UsageError`` for a placeholder that does
    not exist, or a program's name that a client could choose.
    """

    def __init__(self, backend: str, command: Sequence[str | Sequence[str]]) -> None:
        self._backend = backend
        self._groups = tuple(self._parse_group(entry) for entry in command)
        program = self._groups[0].words[0]
        if program.names:
            raise UsageError(f"backend {backend!r}: the program's name must not be a placeholder")
        self.required = self._names(lambda group: not group.optional)
        """The placeholders that must have a value."""
        self.optional = self._names(lambda group: group.optional) - self.required
        """The placeholders that occur only in words left out when they have no value."""
        words = (word for group in self._groups for word in group.words)
        self.expanding = frozenset(word.expands for word in words if word.expands is not None)
        """Which of ``{argv}`` and ``{tool_level}`` the command has."""

    def fill(
        self, values: Mapping[str, str], expansions: Mapping[str, Sequence[str]]
    ) -> tuple[str, ...]:
        """Return the argv for one agent.

        ``values`` has a text, perhaps empty, for each of :data:`PLACEHOLDERS`; ``expansions``
        the words of ``argv`` and ``tool_level``. Raises ``InvalidContext`` for a value that is
        missing where the command needs it, or that would be taken for a flag.
        """
        argv: list[str] = []
        flags_are_over = False
        for group in self._groups:
            missing = sorted(name for name in group.names if not values[name])
            if missing and group.optional:
                continue
            if missing:
                raise InvalidContext(f"backend {self._backend!r} needs a {missing[0]}")
            for word in group.words:
                if word.expands is not None:
                    words = expansions[word.expands]
                    if word.expands == "argv" and not flags_are_over:
                        self._refuse_flag("task", words[0])
                    argv.extend(words)
                    continue
                text = word.fill(values)
                first = word.parts[0] if word.parts else ""
                if isinstance(first, _Slot) and not flags_are_over:
                    self._refuse_flag(first.name, text)
                flags_are_over = flags_are_over or word.parts == ("--",)
                argv.append(text)
        return tuple(argv)

    def _refuse_flag(self, name: str, text: str) -> None:
        if text.startswith("-"):
            raise InvalidContext(
                f"backend {self._backend!r} takes no {name} that begins with '-': "
                "it would be read as a flag"
            )

    def _names(self, wanted: Callable[[_Group], bool]) -> frozenset[str]:
        return frozenset(name for group in self._groups if wanted(group) for name in group.names)

    def _parse_group(self, entry: str | Sequence[str]) -> _Group:
        optional = not isinstance(entry, str)
        texts: Sequence[str] = [entry] if isinstance(entry, str) else entry
        words = tuple(self._parse_word(text) for text in texts)
        names = frozenset(name for word in words for name in word.names)
        if optional and not names:
            raise UsageError(
                f"backend {self._backend!r}: a nested list in a command is left out when its "
                f"placeholder is empty, but {list(texts)!r} has none"
            )
        return _Group(words, optional, names)

    def _parse_word(self, text: str) -> _Word:
        if "\0" in text:
            raise UsageError(f"backend {self._backend!r}: a command cannot hold a NUL")
        if text[:1] == "{" and text[-1:] == "}" and text[1:-1] in _EXPANDING:
            return _Word((), text[1:-1])
        parts: list[str | _Slot] = []
        end = 0
        for match in _PLACEHOLDER.finditer(text):
            name, form = match.groups()
            if name in _EXPANDING:
                raise UsageError(f"backend {self._backend!r}: {{{name}}} must be a word of its own")
            if name not in PLACEHOLDERS or form not in _FORMS:
                raise UsageError(
                    f"backend {self._backend!r}: there is no placeholder {match.group()}"
                )
            if match.start() > end:
                parts.append(text[end : match.start()])
            parts.append(_Slot(name, form))
            end = match.end()
        if end < len(text) or not text:
            parts.append(text[end:])
        return _Word(tuple(parts), None)
