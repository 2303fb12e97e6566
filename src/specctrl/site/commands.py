"""The directive ``commands``: every command of the command line, with the help that its parser gives."""

import argparse
import os
from collections.abc import Iterator
from unittest.mock import patch

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from specctrl.cli.main import make_parser
from specctrl.site.downloads import depends_on
from specctrl.site.nodes import code

COLUMNS = "90"
"""How wide the help is, whatever the terminal in which the site is built."""


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
            text = command.format_help().rstrip()
        if command.description:
            section += nodes.paragraph("", command.description)
        section += nodes.literal_block(text, text, language="text")
        self.set_source_info(section)
        return section
