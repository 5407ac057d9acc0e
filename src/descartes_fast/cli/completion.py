"""The command that prints shell completion, made from the argument parser: completion."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import exits

if TYPE_CHECKING:
    from .arguments import Commands
    from .parser import Parser

__all__ = ["add_commands", "script"]

_AGENT = ("agent", "agents")  # the arguments that take ids of agents


def add_commands(commands: Commands, shared: Parser) -> None:
    """Add the group's command."""
    completion = commands.add_parser(
        "completion",
        help="print a shell's completion script",
        description='Print a completion script. For bash: eval "$(descartes-fast completion '
        'bash)" in ~/.bashrc; for zsh the same in ~/.zshrc; for fish: descartes-fast completion '
        "fish > ~/.config/fish/completions/descartes-fast.fish",
    )
    completion.add_argument("shell", choices=["bash", "zsh", "fish"], help="which shell")
    completion.set_defaults(handler=_completion)


async def _completion(arguments: Namespace) -> int:
    print(script(arguments.parser, arguments.shell), end="")
    return exits.OK


def script(parser: ArgumentParser, shell: str) -> str:
    """Return the completion script of ``parser``'s commands for ``bash``, ``zsh`` or ``fish``."""
    makers = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    return makers[shell](parser)


def _commands(parser: ArgumentParser) -> dict[str, tuple[ArgumentParser, str]]:
    """Return each command's parser and its words of help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {name: (sub, words.get(name, "")) for name, sub in action.choices.items()}
    return {}


def _options(parser: ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if action.option_strings:
            yield action


def _takes_agents(parser: ArgumentParser) -> bool:
    return any(action.dest in _AGENT for action in parser._actions if not action.option_strings)


def _words(parser: ArgumentParser) -> list[str]:
    """Return what may stand after a command, without ids: options and fixed choices."""
    words = [option for action in _options(parser) for option in action.option_strings]
    for action in parser._actions:
        if not action.option_strings and action.choices and action.dest != argparse.SUPPRESS:
            words += [str(choice) for choice in action.choices]
    return words


_BASH = """\
_descartes_fast_offer() {{
    COMPREPLY=($(compgen -W "$1" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
_descartes_fast() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command="" words="" ids="" index
    for ((index = 1; index < COMP_CWORD; index++)); do
        case "${{COMP_WORDS[index]}}" in
            {valued}) ((index++)) ;;
            -*) ;;
            *) command="${{COMP_WORDS[index]}}"; break ;;
        esac
    done
    case "$command $before" in
{values}
    esac
    case "$before" in
        {files}) COMPREPLY=($(compgen -f -- "$word")); return ;;
        {valued}) return ;;
    esac
    case "$command" in
        "") words="{top}" ;;
{cases}
    esac
    if [[ -n "$ids" && "$word" != -* ]]; then
        words="$words $(descartes-fast --timeout 1 ps --quiet 2>/dev/null)"
    fi
    _descartes_fast_offer "$words"
}}
complete -F _descartes_fast descartes-fast
"""


def _bash(parser: ArgumentParser) -> str:
    commands = _commands(parser)

    valued: set[str] = set()
    files: set[str] = set()
    values = []
    for name, sub in [("*", parser), *((name, sub) for name, (sub, _) in commands.items())]:
        for action in _options(sub):
            if action.nargs == 0:
                continue
            valued.update(action.option_strings)
            if action.metavar in ("FILE", "DIR"):
                files.update(action.option_strings)
            if action.choices:
                patterns = "|".join(f'"{name} {option}"' for option in action.option_strings)
                choices = " ".join(map(str, action.choices))
                values.append(f'        {patterns}) _descartes_fast_offer "{choices}"; return ;;')
    cases = []
    for name, (sub, _) in commands.items():
        ids = "yes" if _takes_agents(sub) else ""
        cases.append(f'        {name}) words="{" ".join(_words(sub))}" ids="{ids}" ;;')
    top = [*commands, *(option for action in _options(parser) for option in action.option_strings)]
    return _BASH.format(
        valued="|".join(sorted(valued)),
        files="|".join(sorted(files)),
        values="\n".join(values),
        top=" ".join(top),
        cases="\n".join(cases),
    )


def _zsh(parser: ArgumentParser) -> str:
    """Return the bash script behind zsh's own layer for such scripts."""
    return "autoload -U +X bashcompinit && bashcompinit\n" + _bash(parser)


def _fish(parser: ArgumentParser) -> str:
    commands = _commands(parser)
    lines = [
        "complete -c descartes-fast -f",
        *(
            f"complete -c descartes-fast -n __fish_use_subcommand -a {name} -d {_quoted(words)}"
            for name, (_, words) in commands.items()
        ),
        *_fish_options(parser, "__fish_use_subcommand"),
    ]
    for name, (sub, _) in commands.items():
        condition = f"'__fish_seen_subcommand_from {name}'"
        lines += _fish_options(sub, condition)
        if _takes_agents(sub):
            ids = "'(descartes-fast --timeout 1 ps --quiet 2>/dev/null)'"
            lines.append(f"complete -c descartes-fast -n {condition} -a {ids}")
        for action in sub._actions:
            if not action.option_strings and action.choices:
                choices = _quoted(" ".join(map(str, action.choices)))
                lines.append(f"complete -c descartes-fast -n {condition} -a {choices}")
    return "\n".join(lines) + "\n"


def _fish_options(parser: ArgumentParser, condition: str) -> Iterator[str]:
    for action in _options(parser):
        line = f"complete -c descartes-fast -n {condition}"
        for option in action.option_strings:
            line += f" -l {option[2:]}" if option.startswith("--") else f" -s {option[1:]}"
        if action.choices:
            line += f" -x -a {_quoted(' '.join(map(str, action.choices)))}"
        elif action.nargs != 0:
            line += " -r -F" if action.metavar in ("FILE", "DIR") else " -x"
        if action.help:
            line += f" -d {_quoted(action.help)}"
        yield line


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
