"""completion: print a completion script for bash, zsh or fish."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from imprint import formats
from imprint.cli.options import add_json
from imprint.cli.parsers import Parser, all_verbs, verb_parser
from imprint.cli.verbs import GROUPS, VERBS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint completion bash > ~/.local/share/bash-completion/completions/imprint
  imprint completion zsh > ~/.zfunc/_imprint
  imprint completion fish > ~/.config/fish/completions/imprint.fish
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/completion.md`` lists them too."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Print the script, made from the parsers that the verbs have."""
    parsers = {name: verb_parser(name) for name in all_verbs()}
    render = {"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell]
    lines = list(render(parsers))
    console.block(lines)
    console.result(shell=args.shell, script="\n".join(lines) + "\n")
    return 0


def _values(action: argparse.Action) -> tuple[str, ...]:
    """What may stand for an argument; empty: anything, or a file."""
    if action.choices is not None:
        return tuple(map(str, action.choices))
    if action.metavar == "FORMAT" or (action.dest == "name" and "format" in (action.help or "")):
        return formats.names()
    return ()


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _options(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser.declared if action.option_strings]


def _positionals(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser.declared if not action.option_strings]


def _help(action: argparse.Action) -> str:
    """One line without what shells give a meaning to."""
    text = (action.help or "").replace("%%", "%")
    return "".join(" " if char in "[]:'\"\\`$" else char for char in text).strip()


def _bash(parsers: dict[str, Parser]) -> Iterator[str]:
    yield "# bash completion for imprint"
    yield "_imprint() {"
    yield "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}"
    yield "    local words= verb=${COMP_WORDS[1]}"
    yield f"    case $verb in {'|'.join(GROUPS)}) verb+=-${{COMP_WORDS[2]}} ;; esac"
    yield '    if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f"        words={shlex.quote(' '.join(VERBS))}"
    for group, parts in GROUPS.items():
        yield f'    elif [ "$COMP_CWORD:${{COMP_WORDS[1]}}" = 2:{group} ]; then'
        yield f"        words={shlex.quote(' '.join(parts))}"
    yield "    else"
    yield "        case $verb:$before in"
    for verb, parser in parsers.items():
        name = verb.replace(" ", "-")
        for action in _options(parser):
            if not _takes_value(action):
                continue
            places = "|".join(f"{name}:{option}" for option in action.option_strings)
            yield f"            {places}) words={shlex.quote(' '.join(_values(action)))} ;;"
    yield "            *) case $verb:$word in"
    for verb, parser in parsers.items():
        name = verb.replace(" ", "-")
        flags = [option for action in _options(parser) for option in action.option_strings]
        yield f"                {name}:-*) words={shlex.quote(' '.join(flags))} ;;"
        words = [value for action in _positionals(parser) for value in _values(action)]
        if words:
            yield f"                {name}:*) words={shlex.quote(' '.join(words))} ;;"
    yield "            esac ;;"
    yield "        esac"
    yield "    fi"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$word"))'
    yield "}"
    yield "complete -o bashdefault -o default -F _imprint imprint"


def _zsh(parsers: dict[str, Parser]) -> Iterator[str]:
    yield "#compdef imprint"
    yield "_imprint() {"
    yield "    local -a verbs"
    yield f"    verbs=({' '.join(_zsh_verbs(VERBS))})"
    yield "    if (( CURRENT == 2 )); then"
    yield "        _describe verb verbs"
    yield "        return"
    yield "    fi"
    yield "    shift words"
    yield "    (( CURRENT-- ))"
    yield "    local verb=$words[1]"
    for group, parts in GROUPS.items():
        yield f"    if [[ $verb == {group} ]]; then"
        yield "        if (( CURRENT == 2 )); then"
        yield f"            verbs=({' '.join(_zsh_verbs(parts))})"
        yield "            _describe verb verbs"
        yield "            return"
        yield "        fi"
        yield "        shift words"
        yield "        (( CURRENT-- ))"
        yield "        verb+=-$words[1]"
        yield "    fi"
    yield "    case $verb in"
    for name, parser in parsers.items():
        yield f"        {name.replace(' ', '-')}) _arguments \\"
        for action in _options(parser):
            yield from (
                f"            {shlex.quote(_zsh_option(option, action))} \\"
                for option in action.option_strings
            )
        for action in _positionals(parser):
            values = _values(action)
            source = f"({' '.join(values)})" if values else "_files"
            many = "*" if action.nargs == "+" else ""
            optional = ":" if action.nargs == "?" else ""
            yield f"            {shlex.quote(f'{many}:{optional}{action.dest}:{source}')} \\"
        yield "            ;;"
    yield "    esac"
    yield "}"
    yield '_imprint "$@"'


def _zsh_verbs(verbs: Mapping[str, str]) -> Iterator[str]:
    return (shlex.quote(f"{name}:{what.replace(':', ' -')}") for name, what in verbs.items())


def _zsh_option(option: str, action: argparse.Action) -> str:
    text = f"*{option}[{_help(action)}]"
    if _takes_value(action):
        values = _values(action)
        source = f"({' '.join(values)})" if values else "_files"
        text += f":{action.dest}:{source}"
    return text


def _fish(parsers: dict[str, Parser]) -> Iterator[str]:
    yield "# fish completion for imprint"
    for name, what in VERBS.items():
        words = shlex.quote(what)
        yield f"complete -c imprint -n __fish_use_subcommand -f -a {name} -d {words}"
    for group, parts in GROUPS.items():
        listed = " ".join(parts)
        missing = f"{_seen(group)}; and not {_seen(listed)}"
        for name, what in parts.items():
            words = shlex.quote(what)
            yield f"complete -c imprint -n {shlex.quote(missing)} -f -a {name} -d {words}"
    for name, parser in parsers.items():
        condition = shlex.quote(_fish_condition(name))
        for action in _options(parser):
            line = f"complete -c imprint -n {condition}"
            for option in action.option_strings:
                line += f" -l {option[2:]}" if option.startswith("--") else f" -s {option[1:]}"
            if _takes_value(action):
                values = _values(action)
                line += f" -x -a {shlex.quote(' '.join(values))}" if values else " -r"
            yield f"{line} -d {shlex.quote(_help(action))}"
        words = " ".join(value for action in _positionals(parser) for value in _values(action))
        if words:
            yield f"complete -c imprint -n {condition} -f -a {shlex.quote(words)}"


def _seen(verbs: str) -> str:
    return f"__fish_seen_subcommand_from {verbs}"


def _fish_condition(name: str) -> str:
    """When a verb's arguments are offered; its name may be that of one in a group, too."""
    if " " in name:
        return "; and ".join(map(_seen, name.split()))
    groups = [group for group, parts in GROUPS.items() if name in parts]
    return "; and not ".join(map(_seen, [name, *groups]))
