"""``specctrl evidence``: run what shows each rule, and say what does."""

import argparse
import json
import sys
from typing import Any

from specctrl.cli.command import command

EPILOG = """\
Runs every cell of a page that names a rule, every scenario of profile spec, all proofs and the exploration of two
bits; then plants mutants in the code that each rule binds.  What no mutant breaks does not count.  In a checkout
all of it is kept in _build/evidence, for as long as nothing changes that it depends on; the first run takes a minute
or two.  Needs the package z3-solver (extra: prove).

exit status:
  0  everything passes, and an example or a scenario shows every rule with MUST
  1  a claim is refuted, a property violated, or a rule is not shown; it is named
  2  a wrong command line, an example or a scenario that fails, or a record that cannot be used

examples:
  specctrl evidence
  specctrl evidence force.mask-follows
  specctrl evidence --json
"""
COUNTED = ("examples", "scenarios", "claims", "properties")


def add_evidence(commands: Any) -> None:
    """Add the command to the command line."""
    help = "run what shows each rule, and say what does"
    parser = command(commands, "evidence", evidence_command, help, EPILOG)
    parser.add_argument("rule", nargs="?", metavar="RULE", help="this rule only, with everything that shows it")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def evidence_command(options: argparse.Namespace) -> int:
    """``specctrl evidence``: gather, print, and fail where something is red or missing."""
    from specctrl.evidence.collect import EvidenceError
    from specctrl.evidence.records import RecordError, evidence_folder, gather
    from specctrl.rules import data_folder, load_rules

    if options.rule is not None and options.rule not in load_rules():
        print(f"specctrl: no rule has the id {options.rule!r}", file=sys.stderr)
        return 2
    root = data_folder("spec").parent
    try:
        evidence = gather(root, evidence_folder(root), lambda said: print(f"specctrl: {said}", file=sys.stderr))
    except (EvidenceError, RecordError) as error:
        print(f"specctrl: {error}", file=sys.stderr)
        return 2
    complaints = evidence.complaints()
    document = evidence.as_json()
    document["rules"] = {id: row for id, row in document["rules"].items() if options.rule in (None, id)}
    if options.json:
        print(json.dumps({**document, "complaints": [said for _, said in complaints]}, indent=1))
    elif options.rule is not None:
        _print_rule(document["rules"][options.rule])
    else:
        for id, row in document["rules"].items():
            print(f"{id:38} {', '.join(f'{len(row[kind])} {kind}' for kind in COUNTED)}")
        print(f"{len(document['rules'])} rules, {len(complaints)} complaints")
    for _, said in complaints:
        print(said, file=sys.stderr)
    return 1 if complaints else 0


def _print_rule(row: dict[str, Any]) -> None:
    def broken(item: str) -> str:
        return f"  breaks on {row['broken_by'][item]}" if item in row["broken_by"] else ""

    for example in row["examples"]:
        place = f"{example['page']}:{example['line']}"
        print(f"example   {place}{broken(place)}")
    for scenario in row["scenarios"]:
        print(f"scenario  {scenario}{broken(scenario)}")
    for claim in row["claims"]:
        print(f"claim     {claim}  (specctrl prove --claim {claim})")
    for name in row["properties"]:
        print(f"explored  {name}{broken(name)}")
    for kind, why in (("idle", "executes none of its code"), ("unmoved", "no mutant of its code breaks it")):
        for item in row[kind]:
            print(f"no        {item}  {why}")
    if not row["noticed"].get("mutants"):
        print("mutants   its code has none")
    else:
        print("mutants   " + ", ".join(f"{count} {name}" for name, count in row["noticed"].items()))
