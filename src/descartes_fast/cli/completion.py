"""The command that prints shell completion, made from the argument parser: completion."""

from __future__ import annotations

import argparse
import signal
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import exits

if TYPE_CHECKING:
    from .arguments import Commands
    from .parser import Parser

__all__ = ["add_commands", "script"]

_AGENT = ("agent", "agents")  # the arguments that take ids of agents
_FOR_THE_LIVING = ("attach", "kill", "pause", "resume", "signal", "stop", "write")


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
    return any(action.dest in _AGENT for action in _positionals(parser))


def _positionals(parser: ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def _offers(action: argparse.Action) -> list[str]:
    """Return the words that an argument may be, as far as they are known beforehand."""
    if action.dest == "backend":
        from ..server.builtin_backends import BUILTIN_BACKENDS

        return sorted(BUILTIN_BACKENDS)
    if action.dest == "signal":
        return [number.name for number in signal.Signals]
    if isinstance(action, argparse._SubParsersAction):
        return []
    return [str(choice) for choice in action.choices or ()]


def _words(parser: ArgumentParser) -> str:
    """Return a command's options."""
    return " ".join(option for action in _options(parser) for option in action.option_strings)


# The words of the line are read from the line itself: bash's own are cut at each : and =.
_BASH = """\
_descartes_fast() {{
    local line="${{COMP_LINE:0:$COMP_POINT}}" word="" before="" command="" place=0
    local options="" words="" ids="" server=()
    line="${{line#*[[:blank:]]}}"
    while [[ "$line" == *[[:blank:]]* ]]; do
        word="${{line%%[[:blank:]]*}}"
        line="${{line#*[[:blank:]]}}"
        [[ -n "$word" ]] || continue
        case "$before" in
            --endpoint|--config) server+=("$before" "$word") ;;
        esac
        case "$before" in
            {valued}) before="" ; continue ;;
        esac
        before="$word"
        case "$word" in
            --endpoint=*|--config=*) server+=("$word") ;;
            -*) ;;
            *) if [[ -z "$command" ]]; then command="$word"; else ((place += 1)); fi ;;
        esac
    done
    word="$line"
    if [[ "$word" == --*=* ]]; then
        before="${{word%%=*}}"
        word="${{word#*=}}"
    fi
    COMPREPLY=()
    case "$command $before" in
{values}
    esac
    case "$before" in
        {files}) COMPREPLY=($(compgen -f -- "$word")); return ;;
        {valued}) return ;;
    esac
    case "$command" in
        "") words="{top}" options="{top_options}" ;;
{cases}
    esac
    case "$command $place" in
{places}
    esac
    if [[ "$word" == -* ]]; then
        words="$options"
    elif [[ -n "$ids" ]]; then
        words="$(descartes-fast ${{server[@]+"${{server[@]}}"}} --timeout 1 $ids 2>/dev/null)"
    elif [[ -z "$words" ]]; then
        words="$options"
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
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
            if offers := " ".join(_offers(action)):
                patterns = "|".join(f'"{name} {option}"' for option in action.option_strings)
                found = f'COMPREPLY=($(compgen -W "{offers}" -- "$word"))'
                values.append(f"        {patterns}) {found}; return ;;")
    cases = []
    places = []
    for name, (sub, _) in commands.items():
        ids = _ids(name) if _takes_agents(sub) else ""
        cases.append(f'        {name}) options="{_words(sub)}" ids="{ids}" ;;')
        for place, action in enumerate(_positionals(sub)):
            if offers := " ".join(_offers(action)):
                places.append(f'        "{name} {place}") words="{offers}" ids="" ;;')
    return _BASH.format(
        valued="|".join(sorted(valued)),
        files="|".join(sorted(files)),
        values="\n".join(values),
        top=" ".join(commands),
        top_options=_words(parser),
        cases="\n".join(cases),
        places="\n".join(places),
    )


def _ids(command: str) -> str:
    """Return the command that lists the agents another command is for."""
    return "ps --quiet --active" if command in _FOR_THE_LIVING else "ps --quiet"


def _zsh(parser: ArgumentParser) -> str:
    """Return the bash script behind zsh's own layer for such scripts."""
    return "autoload -U +X bashcompinit && bashcompinit\n" + _bash(parser)


_FISH = """\
function __descartes_fast_agents
    set -l words (commandline -opc)
    set -l server
    for at in (seq (count $words))
        switch $words[$at]
            case '--endpoint=*' '--config=*'
                set -a server $words[$at]
            case --endpoint --config
                set -a server $words[$at] $words[(math $at + 1)]
        end
    end
    descartes-fast $server --timeout 1 $argv 2>/dev/null
end
complete -c descartes-fast -f
"""


def _fish(parser: ArgumentParser) -> str:
    commands = _commands(parser)
    lines = [
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
            ids = f"'(__descartes_fast_agents {_ids(name)})'"
            lines.append(f"complete -c descartes-fast -n {condition} -a {ids}")
        for action in _positionals(sub):
            if offers := " ".join(_offers(action)):
                lines.append(f"complete -c descartes-fast -n {condition} -a {_quoted(offers)}")
    return _FISH + "\n".join(lines) + "\n"


def _fish_options(parser: ArgumentParser, condition: str) -> Iterator[str]:
    for action in _options(parser):
        line = f"complete -c descartes-fast -n {condition}"
        for option in action.option_strings:
            line += f" -l {option[2:]}" if option.startswith("--") else f" -s {option[1:]}"
        if offers := " ".join(_offers(action)):
            line += f" -x -a {_quoted(offers)}"
        elif action.nargs != 0:
            line += " -r -F" if action.metavar in ("FILE", "DIR") else " -x"
        if action.help:
            line += f" -d {_quoted(action.help)}"
        yield line


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
