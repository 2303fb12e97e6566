"""``specctrl reference``: whether the C reference is up to date with the tables and the rules."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

EPILOG = """\
Each function of the C reference names the rules that it carries out, with a hash of their text.  Said are: the
functions whose rule has a new text, rules that nothing carries out, and a register header that is not what the
tables give.

exit status:
  0  nothing is stale
  1  something is; each is named, with what to do
  2  a wrong command line

examples:
  specctrl reference
  specctrl reference --write
  specctrl reference --reviewed force.mask-follows
"""


def add_reference(command: Callable[..., argparse.ArgumentParser], commands: Any) -> None:
    """Add the command to the command line."""
    parser = command(
        commands, "reference", reference_command, "check the C reference against the tables and the rules", EPILOG)
    parser.add_argument("--write", action="store_true", help="write specctrl_regs.h anew from the tables")
    parser.add_argument("--reviewed", action="append", default=[], metavar="RULE",
                        help="the functions that name this rule were reviewed against its present text; repeatable")


def reference_command(options: argparse.Namespace) -> int:
    """``specctrl reference``: write what is asked for, then say what is stale."""
    from specctrl import reference
    from specctrl.rules import load_rules

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
    if options.write:
        (where / reference.REGISTER_HEADER).write_text(reference.register_header(), "utf-8")
    if options.reviewed:
        print(f"{reference.mark_reviewed(where, rules, options.reviewed)} hashes changed")
    wrong = reference.complaints(where, rules)
    for line in wrong:
        print(line)
    if not wrong:
        named = list(reference.annotations(where))
        print(f"{len({found.rule for found in named})} rules in {len({found.function for found in named})} functions, "
              f"{len(reference.omitted(where))} left out with a reason; nothing is stale")
    return 1 if wrong else 0
