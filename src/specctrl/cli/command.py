"""What the commands share: how one joins the parser, and what is wrong with a command line beyond its syntax."""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class UserError(Exception):
    """The command cannot be carried out as given; the message says why."""


@contextmanager
def replacing(path: str) -> Iterator[Callable[[str], None]]:
    """What puts a new text in the place of a file; UserError, at once or then, if it cannot be written.

    The text is written beside the file and renamed, so that the old one stays whole until the new one is.
    A device or a pipe is written as it is.
    """
    target = Path(os.path.realpath(path))
    direct = target.exists() and not target.is_file()
    try:
        if direct:
            beside = None
            open(target, "ab").close()
        else:
            handle, beside = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".new", dir=target.parent)
            os.close(handle)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None

    def put(text: str) -> None:
        try:
            if beside is None:
                target.write_text(text, "utf-8")
                return
            Path(beside).write_text(text, "utf-8")
            os.chmod(beside, target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
            os.replace(beside, target)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from None

    try:
        yield put
    finally:
        if beside is not None:
            Path(beside).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def command(
    commands: Any, name: str, does: Callable[[Any], int], summary: str, epilog: str
) -> argparse.ArgumentParser:
    """Add a command to the parser: its name, the function that carries it out, a line about it, and examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(command=does)
    return parser
