"""``specctrl prove``: prove every claim of a variant, or refute it with a concrete counterexample."""

import argparse
import json
import sys
from typing import Any

from specctrl.cli.command import command
from specctrl.cli.workers import Progress, add_workers, kept_results, workers_of
from specctrl.model.variants import VARIANTS
from specctrl.scenario.writing import write_whole

EPILOG = """\
Every step of the machine is run on 64-bit words that stand for every value, from a vCPU that stands for every
vCPU of the invariant, on every host and under every policy.  Needs the package z3-solver (extra: prove).

exit status:
  0  every claim that was asked for is proven
  1  a claim is refuted; its counterexample is printed and was replayed on plain integers
  2  a wrong command line, Z3 is missing, or the work could not be carried out: a process died, no scheduler answers

examples:
  specctrl prove
  specctrl prove --claim masked_bits_never_change
  specctrl prove --variant rfc-v3 --json
"""


def add_prove(commands: Any) -> None:
    """Add the command to the command line."""
    parser = command(commands, "prove", prove_command, "prove the claims, or refute them with counterexamples", EPILOG)
    parser.add_argument("--variant", choices=list(VARIANTS), default="spec", help="default: spec")
    parser.add_argument("--claim", metavar="NAME", help="prove this claim only")
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--store", action="store_true", help="store the counts of spec, which the tests compare with")


def prove_command(options: argparse.Namespace) -> int:
    """``specctrl prove``: prove everything, report claim by claim."""
    try:
        from specctrl.proof.claims import CLAIMS
        from specctrl.proof.counterexamples import replays
        from specctrl.proof.prove import MANIFEST, figures, prove_all
        from specctrl.shards import ShardError
    except ModuleNotFoundError as missing:
        print(f"specctrl: {missing.name} is missing; install specctrl[prove]", file=sys.stderr)
        return 2
    if options.claim is not None and options.claim not in CLAIMS:
        print(f"specctrl: no claim is named {options.claim!r}; known: {', '.join(CLAIMS)}", file=sys.stderr)
        return 2
    try:
        with Progress("proofs") as told:
            result = prove_all(options.variant, workers_of(options), options.claim, kept_results("prove"), told)
    except ShardError as error:
        print(f"specctrl: {error}", file=sys.stderr)
        return 2
    if options.store and options.variant == "spec" and options.claim is None and not result.refutations:
        write_whole(MANIFEST, json.dumps(figures(result), indent=1) + "\n")
    shown = [claim for claim in CLAIMS if options.claim in (None, claim)]
    counterexamples = replays(VARIANTS[options.variant], [r for r in result.refutations if r.claim in shown])
    document = figures(result)
    document["variant"] = options.variant
    document["claims"] = {
        claim: {"text": CLAIMS[claim].text, "proven": claim not in result.refuted(), **document["claims"][claim],
                **({"counterexample": counterexamples[claim]} if claim in counterexamples else {})}
        for claim in shown
    }
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        for claim, entry in document["claims"].items():
            verdict = "proven" if entry["proven"] else "REFUTED"
            print(f"{verdict:8} {claim}  ({entry['paths']} paths, {entry['obligations']} obligations)")
            print(f"         {entry['text']}")
            for line in entry.get("counterexample", {}).get("lines", ()):
                print(f"           {line}")
        print(f"{options.variant}: {document['paths']} paths in all")
    return 1 if any(not entry["proven"] for entry in document["claims"].values()) else 0
