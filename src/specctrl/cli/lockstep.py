"""``specctrl lockstep``: random histories on the emulator and on another implementation."""

import argparse
import json
import shlex
import sys
import time
from typing import Any

from specctrl.cli.command import command

EPILOG = """\
Histories of up to 50 random events each are performed by the emulator of this specification and by TARGET; after
every event everything that either shows of every vCPU is compared.  The first history after which the two differ is
shortened and printed as a scenario, which `specctrl run FILE --target TARGET` performs again.

TARGET is c (the C reference) or cmd:PROGRAM, a program that speaks the adapter protocol in words (see specctrl run).
It is started once for some hundred histories.

exit status:
  0  no difference
  1  a difference, or a target that broke
  2  a wrong command line
  3  the target cannot run here

examples:
  specctrl lockstep
  specctrl lockstep --events 1000000 --seed 7
  specctrl lockstep --target cmd:./my-adapter > difference.json
"""


def add_lockstep(commands: Any) -> None:
    """Add the command to the command line."""
    parser = command(
        commands, "lockstep", lockstep_command, "compare another implementation on random histories", EPILOG)
    parser.add_argument("--target", default="c", metavar="TARGET", help="c (the default) or cmd:PROGRAM")
    parser.add_argument("--events", type=_count, default=20_000, metavar="N", help="how many; default: 20000")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="other histories; default: 0")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def lockstep_command(options: argparse.Namespace) -> int:
    """``specctrl lockstep``: compare, and print the first difference as a scenario."""
    from specctrl.scenario.report import ALL_PASSED, MISMATCH, NOTHING_RAN
    from specctrl.targets.c import CannotBuild, build
    from specctrl.targets.c_reference import ReferenceMissing, folder
    from specctrl.targets.lockstep import Broken, compare, shortened

    try:
        if options.target == "c":
            program = [str(build(folder()))]
        elif options.target.startswith("cmd:"):
            program = shlex.split(options.target.removeprefix("cmd:"))
        else:
            print(f"specctrl: {options.target!r} is neither c nor cmd:PROGRAM", file=sys.stderr)
            return 2
    except (CannotBuild, ReferenceMissing) as why:
        print(f"specctrl: target 'c' cannot run here: {why}", file=sys.stderr)
        return NOTHING_RAN
    start = time.perf_counter()
    events = 0
    try:
        for done, found in compare(program, options.events, options.seed):
            events = done
            if found is not None:
                found = shortened(program, found)
                print(json.dumps(found.document(), indent=1))
                print(f"they differ: the emulator shows {found.expected or 'ok'}, the target {found.observed}",
                      file=sys.stderr)
                return MISMATCH
    except Broken as broken:
        print(f"specctrl: {broken}", file=sys.stderr)
        return MISMATCH
    rate = events / (time.perf_counter() - start)
    print(f"{events} events, seed {options.seed}: no difference ({rate:.0f} events a second)")
    return ALL_PASSED
