"""What the commands share: how one joins the parser, and what is wrong with a command line beyond its syntax."""

import argparse
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from specctrl.processes import MOST
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


def at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    """What reads a number of the command line: an integer in ordinary digits, within these bounds."""

    def number(text: str) -> int:
        if not re.fullmatch("[0-9]{1,18}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least}")
        if most is not None and int(text) > most:
            raise argparse.ArgumentTypeError(f"{text} is more than {most}, which this machine can bear")
        return int(text)

    return number


JOBS = at_least(1, MOST)
"""What reads how many processes are wanted."""


def command(
    commands: Any, name: str, does: Callable[[Any], int], summary: str, epilog: str
) -> argparse.ArgumentParser:
    """Add a command to the parser: its name, the function that carries it out, a line about it, and examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(command=does)
    return parser
