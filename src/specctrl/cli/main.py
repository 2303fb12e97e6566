"""The command line: all its commands."""

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence

from specctrl import __version__
from specctrl.cli.command import UserError
from specctrl.cli.evidence import add_evidence
from specctrl.cli.explore import add_explore
from specctrl.cli.export import add_export
from specctrl.cli.lockstep import add_lockstep
from specctrl.cli.lookup import add_decode, add_parts, add_rules
from specctrl.cli.mutants import add_mutants
from specctrl.cli.policies import add_policies
from specctrl.cli.probe import add_probe
from specctrl.cli.processor import add_processor
from specctrl.cli.prove import add_prove
from specctrl.cli.reference import add_reference
from specctrl.cli.run import add_run
from specctrl.cli.vectors import add_vectors

USAGE = 2
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Errors of an output; those of a file have its name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    if sys.stderr is None:  # closed; what is said there would go to standard output
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the end
    if sys.stdout is None:
        print("specctrl: standard output is closed", file=sys.stderr)
        return USAGE
    parser = make_parser()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the terminal cannot show
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return USAGE
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except UserError as error:
        print(f"specctrl: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        _say_no_more()  # the reader has had enough
        return 1
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        if not what and error.errno in NO_ROOM:
            _say_no_more()
            what = "standard output cannot be written: "
        print(f"specctrl: {what}{error.strerror or error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return status


def _say_no_more() -> None:
    """What standard output still holds goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="specctrl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="An executable specification of virtual IA32_SPEC_CTRL for KVM.",
        epilog="examples:\n"
               "  specctrl run vectors\n"
               "  specctrl decode IA32_SPEC_CTRL 0x401\n"
               "  specctrl rules show cap.enable.before-vcpus\n\n"
               "Each command has a --help of its own.",
    )
    parser.add_argument("--version", action="version", version=f"specctrl {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_run(commands)
    add_decode(commands)
    add_rules(commands)
    add_parts(commands)
    add_explore(commands)
    add_prove(commands)
    add_mutants(commands)
    add_policies(commands)
    add_evidence(commands)
    add_reference(commands)
    add_lockstep(commands)
    add_probe(commands)
    add_processor(commands)
    add_vectors(commands)
    add_export(commands)
    return parser

