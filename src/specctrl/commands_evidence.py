"""``specctrl evidence``: run what shows each rule, and say what does."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

EPILOG = """\
Runs every cell of a page that names a rule, and every scenario of profile spec.  One counts only if it executes
the code that the rule binds.  Claims are listed as `specctrl prove` knows them; they are not proven here.

exit status:
  0  every rule with MUST is shown by an example or a scenario
  1  some is not; it is named
  2  a wrong command line, or an example or a scenario fails

examples:
  specctrl evidence
  specctrl evidence force.mask-follows
  specctrl evidence --json
"""


def add_evidence(command: Callable[..., argparse.ArgumentParser], commands: Any) -> None:
    """Add the command to the command line."""
    help = "run what shows each rule, and say what does"
    parser = command(commands, "evidence", evidence_command, help, EPILOG)
    parser.add_argument("rule", nargs="?", metavar="RULE", help="this rule only, with everything that shows it")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def evidence_command(options: argparse.Namespace) -> int:
    """``specctrl evidence``: collect, print, and fail where a MUST has nothing."""
    from specctrl.claimed import claims_of
    from specctrl.evidence import EvidenceError, collect, missing
    from specctrl.rules import load_rules

    rules = load_rules()
    if options.rule is not None and options.rule not in rules:
        print(f"specctrl: no rule has the id {options.rule!r}", file=sys.stderr)
        return 2
    try:
        found = collect(rules)
    except EvidenceError as error:
        print(f"specctrl: {error}", file=sys.stderr)
        return 2
    unshown = missing(rules, found)
    shown = {id: {**asdict(found[id]), "claims": claims_of(id)} for id in rules if options.rule in (None, id)}
    if options.json:
        print(json.dumps({"schema": "specctrl/evidence/1", "rules": shown, "missing": unshown}, indent=1))
    elif options.rule is not None:
        one = shown[options.rule]
        for example in one["examples"]:
            print(f"example   {example['page']}:{example['line']}")
        for scenario in one["scenarios"]:
            print(f"scenario  {scenario}")
        for claim in one["claims"]:
            print(f"claim     {claim}  (specctrl prove --claim {claim})")
    else:
        for id, one in shown.items():
            counts = ", ".join(f"{len(one[kind])} {kind}" for kind in ("examples", "scenarios", "claims"))
            print(f"{id:38} {counts}")
        print(f"{len(rules)} rules, {len(unshown)} of those with MUST not shown")
    for id in unshown:
        print(f"nothing shows {id}", file=sys.stderr)
    return 1 if unshown else 0
