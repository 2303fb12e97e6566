"""What the commands share: how one joins the parser, and what is wrong with a command line beyond its syntax."""

import argparse
from collections.abc import Callable
from typing import Any


class UserError(Exception):
    """The command cannot be carried out as given; the message says why."""


def command(
    commands: Any, name: str, does: Callable[[Any], int], summary: str, epilog: str
) -> argparse.ArgumentParser:
    """Add a command to the parser: its name, the function that carries it out, a line about it, and examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(command=does)
    return parser
