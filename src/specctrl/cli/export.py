"""``specctrl export``: the scenarios as an archive, and what upstream trees take."""

import argparse
import sys
from pathlib import Path
from typing import Any

from specctrl.cli.command import UserError, command

EPILOG = """\
what:
  vectors              the scenarios, as an archive (FILE ends in .tar or .tar.gz) or in a folder, which
                       must be new or empty; its index.json says of each scenario its level, operations,
                       rules, profile and the sha256 of its content
  selftest             a KVM selftest in C, for tools/testing/selftests/kvm/x86
  msrs-rows            rows for the table of x86/msrs_test.c of the KVM selftests
  kvm-unit-tests-rows  lines for test_mitigation_msrs in x86/msr.c of kvm-unit-tests
  api-rst              a fragment for Documentation/virt/kvm/api.rst

Without FILE, or with -, a text goes to standard output; vectors need a FILE.
The selection chooses which scenarios become cases of the selftest.
The same sources give the same bytes.

exit status:
  0; 2 for a set that is not valid, or a file that cannot be written

examples:
  specctrl export vectors vectors.tar.gz
  specctrl export selftest force_spec_ctrl_test.c
  specctrl export selftest --kind hand
"""


def add_export(commands: Any) -> None:
    """Add ``export`` to the command line."""
    from specctrl.scenario.selection import add_selection
    from specctrl.vectors.upstream.shapes import SHAPES

    parser = command(commands, "export", export_command, "write the scenarios, or what upstream trees take", EPILOG)
    parser.add_argument("what", choices=["vectors", *SHAPES], metavar="WHAT", help="see below")
    parser.add_argument("target", type=Path, metavar="FILE", nargs="?", help="where to (see below)")
    add_selection(parser)


def export_command(options: argparse.Namespace) -> int:
    """``specctrl export WHAT [FILE]``."""
    from specctrl.scenario.selection import Selection, selection
    from specctrl.scenario.writing import write_whole

    chosen = selection(options)
    if chosen != Selection([], [], []) and options.what != "selftest":
        raise UserError("a selection goes with selftest only")
    to_stdout = options.target is None or str(options.target) == "-"
    if options.what == "vectors" and to_stdout:
        raise UserError("specctrl export vectors FILE")
    try:
        if options.what == "vectors":
            return _vectors(options.target)
        text = _text(options.what, chosen)
        if to_stdout:
            sys.stdout.write(text)
        else:
            write_whole(options.target, text)
            print(f"{len(text.splitlines())} lines in {options.target}")
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        known = isinstance(error, OSError) and error.strerror
        if known and to_stdout:
            raise
        said = f"{options.target} cannot be written: {known}" if known else error
        print(f"specctrl: {said}", file=sys.stderr)
        return 2
    return 0


def _vectors(target: Path) -> int:
    from specctrl.rules import data_folder
    from specctrl.scenario import Invalid
    from specctrl.vectors.archive import export

    try:
        number = export(data_folder("vectors"), target)
    except Invalid as error:
        print(f"specctrl: {error}", file=sys.stderr)
        return 2
    print(f"{number} files in {target}")
    return 0


def _text(what: str, chosen: Any) -> str:
    from specctrl.vectors.upstream.selftest import selftest
    from specctrl.vectors.upstream.shapes import SHAPES

    return selftest(chosen) if what == "selftest" else SHAPES[what].text()
