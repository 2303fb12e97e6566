"""What the commands share: how one joins the parser, and what is wrong with a command line beyond its syntax."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from specctrl.scenario.writing import Replacement


class UserError(Exception):
    """The command cannot be carried out as given; the message says why."""


@contextmanager
def replacing(path: str) -> Iterator[Callable[[str], None]]:
    """What puts a new text in the place of a file; UserError, at once or then, if it cannot be written."""
    try:
        replacement = Replacement(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None

    def put(text: str) -> None:
        try:
            replacement.put(text)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from None

    try:
        yield put
    finally:
        replacement.drop()


def command(
    commands: Any, name: str, does: Callable[[Any], int], summary: str, epilog: str
) -> argparse.ArgumentParser:
    """Add a command to the parser: its name, the function that carries it out, a line about it, and examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(command=does)
    return parser
