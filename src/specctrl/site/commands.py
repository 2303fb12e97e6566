"""The directive ``commands``: every command of the command line, from the help that its parser gives."""

import argparse
import os
import re
import textwrap
from collections.abc import Iterator
from unittest.mock import patch

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from specctrl.cli.main import make_parser
from specctrl.site.downloads import depends_on
from specctrl.site.nodes import code

COLUMNS = "90"
"""How wide the usage is, whatever the terminal in which the site is built."""


def parsers(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """The parser of every command, subcommands behind their command, with a sentence on it.

    >>> [(command.prog, said) for command, said in parsers(make_parser())][1]
    ('specctrl decode', "Take a register's value apart into its fields.")
    """
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            help = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield command, command.description or f"{help[name][:1].upper()}{help[name][1:]}."
                yield from parsers(command)


def paragraphs(epilog: str) -> Iterator[tuple[str, str]]:
    """What stands below the options: sentences, or a heading with its lines as they are.

    >>> list(paragraphs("It runs\\nonce.\\n\\nexit status:\\n  0  done\\n\\n  1  not\\n"))
    [('It runs once.', ''), ('Exit status:', '0  done\\n\\n1  not')]
    """
    for part in re.split(r"\n\n(?=\S)", epilog.strip("\n")):
        said, lines = re.fullmatch(r"((?:\S.*(?:\n|$))*)((?:.|\n)*)", part).groups()  # type: ignore[union-attr]
        said = " ".join(said.split()) or "Each of these:"
        yield f"{said[:1].upper()}{said[1:]}", textwrap.dedent(lines.strip("\n"))


def sentence(said: str) -> nodes.paragraph:
    """A paragraph in which an option keeps its two hyphens."""
    pieces = re.split(r"(--[a-z-]+|`[^`]+`)", said)
    return nodes.paragraph("", "", *(code(piece.strip("`")) if place % 2 else nodes.Text(piece)
                                     for place, piece in enumerate(pieces) if piece))


class CommandsDirective(SphinxDirective):
    """Makes a section of each command."""

    def run(self) -> list[nodes.Node]:
        """Render the commands."""
        depends_on(self.env)
        return [self._section(command, said) for command, said in parsers(make_parser())]

    def _section(self, command: argparse.ArgumentParser, said: str) -> nodes.section:
        section = nodes.section("", nodes.title("", "", code(command.prog)), ids=[command.prog.replace(" ", "-")])
        section["names"] = [command.prog]
        section += nodes.paragraph("", said)
        with patch.dict(os.environ, COLUMNS=COLUMNS):
            usage = command.format_usage().rstrip()
        section += nodes.literal_block(usage, usage, language="text")
        for group in command._action_groups:
            if listed := self._arguments(command, group):
                if group.description:
                    section += nodes.paragraph("", f"{(group.title or '').capitalize()}; {group.description}.")
                section += listed
        for said, lines in paragraphs(command.epilog) if command.epilog else ():
            section += sentence(said)
            if lines:
                section += nodes.literal_block(lines, lines, language="text")
        self.set_source_info(section)
        return section

    def _arguments(self, command: argparse.ArgumentParser, group: argparse._ArgumentGroup) -> nodes.Node | None:
        """What the arguments of a group do, but for ``--help``, which every command has."""
        formatter = command._get_formatter()
        items = [
            nodes.definition_list_item(
                "", nodes.term("", "", code(formatter._format_action_invocation(action))),
                nodes.definition("", sentence(formatter._expand_help(action))))
            for action in group._group_actions
            if action.help and not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)]
        return nodes.definition_list("", *items) if items else None
