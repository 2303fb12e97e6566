"""``specctrl mutants``: plant small changes in the rule code, and see what notices them."""

import argparse
import json
import sys
from typing import Any

from specctrl.cli.command import command

EPILOG = """\
Each mutant is planted alone in a copy of the project, where the scenarios, the pages and the explorer run.
A mutant's name begins with its module and its function.
With --proofs those of functions that handle a word are shown to the proofs, which needs z3-solver.
Without an option nothing runs: the stored table is summed up.  Needs a checkout of the project.

exit status:
  0  the table is complete, each survivor is explained, and what was run again gave what is stored
  1  it is not, or a result differs
  2  a wrong command line

examples:
  specctrl mutants
  specctrl mutants --sample 20
  specctrl mutants --proofs --jobs 1
  specctrl mutants --only kvm.vcpu:Vcpu.init     # after a change of that function
  specctrl mutants --all
"""


def add_mutants(commands: Any) -> None:
    """Add the command to the command line."""
    parser = command(
        commands, "mutants", mutants_command, "plant mutants in the rule code, and see what notices them", EPILOG)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--sample", type=_count, metavar="N", help="run N mutants, evenly spread, and compare")
    which.add_argument("--proofs", action="store_true", help="show the mutants of words to the proofs, and store it")
    which.add_argument(
        "--only", action="append", metavar="NAME",
        help="run the mutants whose names begin so, and those that the table lacks, as --all does; may be repeated")
    which.add_argument("--all", action="store_true", help="run every mutant, also against the proofs, and store it")
    parser.add_argument("--jobs", type=_count, default=2, metavar="N", help="processes; default: 2")
    parser.add_argument("--json", action="store_true", help="print the figures, or what was run, as JSON")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def mutants_command(options: argparse.Namespace) -> int:
    """``specctrl mutants``: the stored table, or a part of it made again."""
    from specctrl.evidence.mutants import all_mutants, spread
    from specctrl.evidence.mutation_table import complaints, figures, refuting, run_all, store, stored, without

    mutants = all_mutants()
    kept: dict[str, Any] = {"mutants": {}, "proofs": {}, "theorems": {}}
    if options.only:
        again = [key for key in mutants if key.startswith(tuple(options.only))]
        kept = without(stored(), again, mutants)
        chosen = [key for key in mutants if key not in kept["mutants"]]
    else:
        chosen = list(mutants) if options.all else spread(list(mutants), options.sample or 0)
    found = {}
    for key, noticed in run_all([mutants[key] for key in chosen], options.jobs) if chosen else ():
        found[key] = noticed
        print(f"\r{len(found)} of {len(chosen)}", end="", file=sys.stderr, flush=True)
    if chosen:
        print(file=sys.stderr)
    if options.all or options.only:
        noticed_by = kept["mutants"] | found
        store({key: noticed_by[key] for key in mutants}, *refuting(mutants, options.jobs, kept))
    elif options.proofs:
        store(stored()["mutants"], *refuting(mutants, options.jobs))
    table = stored()
    wrong = complaints(table, mutants)
    wrong += [f"{key}: {noticed}, not {table['mutants'].get(key)}" for key, noticed in found.items()
              if noticed != table["mutants"].get(key)]
    sums = figures(table)
    if options.json:
        print(json.dumps({"figures": sums, "run": found, "wrong": wrong}, indent=1))
    else:
        for name, number in sums.items():
            print(f"{number:5}  {name}")
        for line in wrong:
            print(line)
    return 1 if wrong else 0
