"""``specctrl reference``: whether the C reference is up to date with the tables and the rules."""

import argparse
import sys
from pathlib import Path
from typing import Any

from specctrl.cli.command import command

EPILOG = """\
Each function of the C reference names the rules that it carries out; reviewed.txt beside it has a hash of each
rule's text.  Said are: the functions whose rule has a new text, rules that nothing carries out, and a register header
that is not what the tables give.  Of a FILE only the functions are looked at, with the reviewed.txt in its folder.

exit status:
  0  nothing is stale
  1  something is; each is named, with what to do
  2  a wrong command line

examples:
  specctrl reference
  specctrl reference --write
  specctrl reference --reviewed force.mask-follows
  specctrl reference arch/x86/kvm/vmx/spec_ctrl.h     # a copy that keeps the comments, and reviewed.txt beside it
"""


def add_reference(commands: Any) -> None:
    """Add the command to the command line."""
    parser = command(
        commands, "reference", reference_command, "check the C reference against the tables and the rules", EPILOG)
    parser.add_argument("files", nargs="*", metavar="FILE", help="files with such comments; default: the reference")
    parser.add_argument("--write", action="store_true", help="write specctrl_regs.h anew from the tables")
    parser.add_argument("--reviewed", action="append", default=[], metavar="RULE",
                        help="the functions that name this rule were reviewed against its present text; repeatable")


def reference_command(options: argparse.Namespace) -> int:
    """``specctrl reference``: write what is asked for, then say what is stale."""
    from specctrl.rules import load_rules
    from specctrl.scenario.writing import write_whole
    from specctrl.targets import c_reference as reference

    rules = load_rules()
    unknown = [id for id in options.reviewed if id not in rules]
    if unknown:
        print(f"specctrl: no rule has the id {unknown[0]!r}", file=sys.stderr)
        return 2
    try:
        where = reference.folder()
    except reference.ReferenceMissing as missing:
        print(f"specctrl: {missing}", file=sys.stderr)
        return 1
    paths = [Path(name) for name in options.files] or [where / name for name in reference.ANNOTATED]
    missing_files = [path for path in paths if not path.is_file()]
    if missing_files:
        print(f"specctrl: {missing_files[0]} is no file", file=sys.stderr)
        return 2
    if options.write:
        write_whole(where / reference.REGISTER_HEADER, reference.register_header())
    try:
        if not options.files:
            named = reference.own_annotations(where)
            if options.reviewed:
                changed = reference.mark_reviewed(where, named, rules, options.reviewed)
                print(f"{changed} hashes changed")
            wrong = reference.complaints(where, rules)
        else:
            named, wrong = [], []
            for path in paths:
                own = list(reference.annotations(path, str(path)))
                if options.reviewed:
                    print(f"{reference.mark_reviewed(path.parent, own, rules, options.reviewed)} hashes changed")
                wrong += reference.stale(own, rules, reference.reviewed(path.parent))
                named += own
    except ValueError as error:
        print(f"specctrl: {error}", file=sys.stderr)
        return 1
    for line in wrong:
        print(line)
    counts = f"{len({found.rule for found in named})} rules in {len({found.function for found in named})} functions"
    print(f"{counts}; {len(wrong)} complaints")
    return 1 if wrong else 0
