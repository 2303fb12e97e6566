"""The command line: all its commands."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

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
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has had enough
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


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


def script() -> NoReturn:
    """Leave with the status of :func:`main`; a signal that ends the command lets it end what it started."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main())


def _terminated(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)
