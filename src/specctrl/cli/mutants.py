"""``specctrl mutants``: plant small changes in the rule code, and see what notices them."""

import argparse
import json
import shutil
import sys
from typing import Any

from specctrl.cli.command import at_least, command
from specctrl.cli.workers import Progress, add_workers, kept_results, workers_of

EPILOG = """\
Each mutant is planted alone in a process that is thrown away, where the scenarios, the pages and the explorer run.
What a run that broke had found is kept: the same command goes on there.
A mutant's name begins with its module and its function.
With --proofs each is shown to the theorems that are linked to the function which it changes.
Without an option nothing runs: the stored table is summed up.  Needs a checkout of the project, and z3-solver.

exit status:
  0  the table is complete, each survivor is explained, and what was run again gave what is stored
  1  it is not, or a result differs
  2  a wrong command line, or evidence that fails without a mutant

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
    which.add_argument("--sample", type=at_least(1), metavar="N", help="run N mutants, evenly spread, and compare")
    which.add_argument("--proofs", action="store_true", help="show the mutants to the theorems, and store it")
    which.add_argument(
        "--only", action="append", metavar="NAME",
        help="run the mutants whose names begin so, and those that the table lacks, as --all does; may be repeated")
    which.add_argument(
        "--scenarios", action="store_true", help="ask the scenarios alone again, about every mutant, and store it")
    which.add_argument("--all", action="store_true", help="run every mutant, also against the theorems, and store it")
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="print the figures, or what was run, as JSON")


def _kinds(noticed: dict[str, Any]) -> list[str]:
    """Which kinds of evidence notice; the first scenario or page of a kind may be another with each new one."""
    return [kind for kind, said in noticed.items() if said]


def mutants_command(options: argparse.Namespace) -> int:
    """``specctrl mutants``: the stored table, or a part of it made again."""
    try:
        from specctrl.evidence.links import theorems_of
        from specctrl.evidence.mutants import all_mutants, spread, stored
        from specctrl.evidence.mutation_table import (
            NotGreen,
            complaints,
            figures,
            noticed_by,
            noticed_by_scenarios,
            one_of_each,
            plant_all,
            refute,
            store,
            without,
        )
        from specctrl.shards import ShardError
    except ModuleNotFoundError as missing:
        print(f"specctrl: {missing.name} is missing; install specctrl[prove]", file=sys.stderr)
        return 2
    mutants, stores = list(all_mutants()), options.all or options.only or options.proofs or options.scenarios
    kept: dict[str, Any] = {"mutants": {}, "proofs": {}, "theorems": {}}
    if options.only:
        kept = without(stored(), [key for key in mutants if key.startswith(tuple(options.only))], mutants)
        chosen = [key for key in mutants if key not in kept["mutants"]]
    elif options.scenarios:
        kept, chosen = without(stored(), [], mutants), mutants
        if lacking := kept["mutants"].keys() ^ set(mutants):
            print(f"specctrl: the table lacks {min(lacking)}: run --only none-such first", file=sys.stderr)
            return 2
    elif options.proofs:
        kept, chosen = {**kept, "mutants": stored()["mutants"]}, []
    else:
        chosen = mutants if options.all else spread(mutants, options.sample or 0)
    workers, kept_in = workers_of(options), kept_results("mutants")
    try:
        with Progress("mutants") as told:
            ask = noticed_by_scenarios if options.scenarios else noticed_by
            found = {key: kept["mutants"].get(key, {}) | said
                     for key, said in plant_all(chosen, workers, kept_in, told, ask)} if chosen else {}
        asked = [key for key in mutants if key in theorems_of() and key not in kept["proofs"]]
        with Progress("mutants before theorems") as told:
            refuted_by = dict(refute(asked, workers, kept_in, told)) if stores else {}
    except ShardError as error:
        print(f"specctrl: {error}", file=sys.stderr)
        return 2
    except NotGreen as red:
        print(f"specctrl: without a mutant this fails, and would notice each: {red}", file=sys.stderr)
        return 2
    if stores:
        all_found, refuted_by = kept["mutants"] | found, kept["proofs"] | refuted_by
        proofs = {key: refuted_by[key] for key in mutants if key in refuted_by}
        store({key: all_found[key] for key in mutants}, proofs, one_of_each(proofs, kept["theorems"]))
    if kept_in is not None:
        shutil.rmtree(kept_in, ignore_errors=True)
    table = stored()
    wrong = complaints(table, mutants)
    wrong += [f"{key}: {noticed}, not {table['mutants'].get(key)}" for key, noticed in found.items()
              if _kinds(noticed) != _kinds(table["mutants"].get(key, {}))]
    sums = figures(table)
    if options.json:
        print(json.dumps({"figures": sums, "run": found, "wrong": wrong}, indent=1))
    else:
        for name, number in sums.items():
            print(f"{number:5}  {name}")
        for line in wrong:
            print(line)
    return 1 if wrong else 0
