"""The command line as documents: its commands, options and notes, read from the parsers themselves.

The output depends on the parsers alone: not on the terminal, nor on the Python version's own formatting of help.
"""

import argparse
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from specctrl import __version__


@dataclass(frozen=True, slots=True)
class Option:
    """An argument or an option, as it is written and what it does."""

    written: str
    help: str


@dataclass(frozen=True, slots=True)
class Page:
    """A command or a subcommand: its name, a synopsis, what it does, its options and its notes."""

    name: str
    synopsis: str
    summary: str
    options: tuple[Option, ...]
    notes: str


def pages(parser: argparse.ArgumentParser) -> list[Page]:
    """The pages of every command of a parser, subcommands behind their command.

    >>> from specctrl.cli.main import make_parser
    >>> [page.name for page in pages(make_parser())][:2]
    ['specctrl run', 'specctrl decode']
    """
    found = []
    for name, command, summary in _commands(parser):
        found.append(Page(f"{parser.prog} {name}", _synopsis(command), _sentence(summary),
                          tuple(_options(command)), command.epilog or ""))
        for inner, part, said in _commands(command):
            found.append(Page(f"{parser.prog} {name} {inner}", _synopsis(part), _sentence(said),
                              tuple(_options(part)), part.epilog or ""))
    return found


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield name, command, summaries.get(name, "")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _options(parser: argparse.ArgumentParser) -> Iterator[Option]:
    for action in parser._actions:
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            continue
        yield Option(_written(action), _helped(action))


def _written(action: argparse.Action) -> str:
    """An option with its value, or an argument by its name.

    >>> parser = argparse.ArgumentParser()
    >>> _written(parser.add_argument("--by", choices=["rule", "level"]))
    '--by {rule,level}'
    """
    value = _value(action)
    if not action.option_strings:
        return value
    return ", ".join(f"{name} {value}".rstrip() for name in action.option_strings)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices is not None and action.metavar is None:
        one = "{" + ",".join(str(choice) for choice in action.choices) + "}"
    else:
        one = str(action.metavar or (action.dest.upper() if action.option_strings else action.dest))
    return {"+": f"{one}...", "*": f"[{one}...]", "?": f"[{one}]"}.get(str(action.nargs), one)


def _helped(action: argparse.Action) -> str:
    said = action.help or ""
    return said % {**vars(action), "prog": "specctrl"} if "%" in said else said


def _synopsis(parser: argparse.ArgumentParser) -> str:
    """The command with everything that it takes; what is optional in brackets, alternatives with a bar."""
    words = [parser.prog]
    together = {id(action): group for group in parser._mutually_exclusive_groups for action in group._group_actions}
    done = set()
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or id(action) in done:
            continue
        if isinstance(action, argparse._SubParsersAction):
            words.append(f"{action.metavar or 'COMMAND'} ...")
            continue
        group = together.get(id(action))
        actions = [action] if group is None else list(group._group_actions)
        done |= {id(each) for each in actions}
        text = " | ".join(f"{(each.option_strings or [''])[-1]} {_value(each)}".strip() for each in actions)
        required = action.required if group is None else group.required
        if not action.option_strings:
            words.append(text)
        elif required:
            words.append(text if group is None else f"({text})")
        else:
            words.append(f"[{text}]")
    return "\n".join(textwrap.wrap("\0".join(word.replace(" ", "\1") for word in words).replace("\0", " "), 88,
                                   subsequent_indent="    ", break_long_words=False,
                                   break_on_hyphens=False)).replace("\1", " ")


# ---- a man page


def man_page(parser: argparse.ArgumentParser) -> str:
    """The manual page of a command, in the macros of man(7)."""
    name = parser.prog
    lines = [
        f'.TH {name.upper()} 1 "" "{name} {__version__}" "User Commands"',
        ".SH NAME", f"{name} \\- {_roff(_lowered(parser.description or ''))}",
        ".SH SYNOPSIS", f".B {name}", ".I COMMAND", "[arguments]",
        ".SH DESCRIPTION", _roff(parser.description or ""), *_notes(parser.epilog or ""),
        ".SH COMMANDS",
    ]
    for page in pages(parser):
        lines += [f".SS {_roff(page.name)}", _roff(page.summary), *_verbatim(page.synopsis)]
        for option in page.options:
            lines += [".TP", f".B {_roff(option.written)}", _roff(option.help) or "\\&"]
        lines += _notes(page.notes)
    return "\n".join(lines) + "\n"


def _lowered(text: str) -> str:
    return f"{text[:1].lower()}{text[1:]}".rstrip(".")


def _notes(text: str) -> list[str]:
    return _verbatim(text) if text else []


def _verbatim(text: str) -> list[str]:
    return [".PP", ".nf", *(_roff(line) for line in text.rstrip().splitlines()), ".fi"]


def _roff(text: str) -> str:
    r"""Text without a meaning for roff: escapes, and a line that would begin a request.

    >>> print(_roff(".x --a"))
    \&.x \-\-a
    """
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
