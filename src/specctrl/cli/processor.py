"""``specctrl processor``: the rules of the processor's chapter on an independent processor."""

import argparse
import json
import sys
from typing import Any

from specctrl.cli.command import at_least, command

EPILOG = """\
The logical processor of this specification and one that others wrote do the same; what either shows after each step
is compared.  For each rule of the chapter on the processor that the package's processor can show:
its cases, for nearly all the whole table of one bit, for each of the 64 bits.
Then random sequences of 100 steps.

bochs is the processor of Bochs, from the package bochscpu-python (pip install '.[bochs]'): four models, two
with the control, one without it, one without IA32_SPEC_CTRL, each in a process of its own.  A C compiler is needed.

Known differences are declared.  One that is not declared fails, and one that is declared and not seen fails too.
What the SDM leaves undefined is not compared.

exit status:
  0  the two show the same, but for declared differences, and each of those is seen
  1  a difference that is not declared, a declared one that is not seen, or a processor that broke
  2  a wrong command line
  3  the processor cannot run here

examples:
  specctrl processor --on bochs
  specctrl processor --on bochs --seed 7 --sequences 1000
"""


def add_processor(commands: Any) -> None:
    """Add the command to the command line."""
    parser = command(
        commands, "processor", processor_command, "compare the processor's rules with an independent processor", EPILOG)
    parser.add_argument("--on", required=True, choices=["bochs"], help="the independent processor")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="other random sequences; default: 0")
    parser.add_argument("--sequences", type=at_least(0), default=100, metavar="N", help="on each model; default: 100")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def processor_command(options: argparse.Namespace) -> int:
    """``specctrl processor``: compare every model, print the counts."""
    from specctrl.scenario.report import ALL_PASSED, MISMATCH, NOTHING_RAN
    from specctrl.scenario.running import TargetFailed
    from specctrl.targets.bochs.models import MODELS
    from specctrl.targets.bochs.processes import BochsMissing, Processes

    try:
        processes = Processes()
    except BochsMissing as missing:
        print(f"specctrl: bochs cannot run here: {missing}", file=sys.stderr)
        return NOTHING_RAN
    passed, document = True, {}
    try:
        for model, about in MODELS.items():
            findings = processes.compare(model, options.seed, options.sequences)
            passed = passed and findings.passed
            document[model] = findings.as_json()
            if not options.json:
                print(f"{model} ({about.title})\n{findings.as_text()}\n")
        processes.close()
    except TargetFailed as failure:
        print(f"specctrl: {failure}", file=sys.stderr)
        return MISMATCH
    if options.json:
        print(json.dumps({"seed": options.seed, "passed": passed, "models": document}, indent=1))
    else:
        print("no difference but declared ones" if passed else "there are differences that are not as declared")
    return ALL_PASSED if passed else MISMATCH
