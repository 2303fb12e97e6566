"""``specctrl explore``: every history over a few bits, and the shortest one to each violation."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from specctrl.cli.command import at_least, command
from specctrl.cli.workers import add_workers, kept_results, workers_of
from specctrl.exploration.events import Pair
from specctrl.exploration.histories import Exploration, spelt
from specctrl.exploration.properties import PROPERTIES
from specctrl.exploration.search import (
    BITS,
    DEFAULT_BITS,
    HOSTS,
    Work,
    all_pairs,
    bits_of,
    few_pairs,
    search,
    worlds,
)
from specctrl.model.variants import VARIANTS

PAIRS: dict[str, Callable[[int], list[Pair]]] = {"all": all_pairs, "few": few_pairs, "none": lambda _: [(0, 0)]}

EPILOG = """\
The rule code itself runs, breadth first, from every host and every pair of userspace, in step with
the contract.  Pairs of mask and value: "few" are none, the lowest bit forced to 0, the highest
forced to 1, both, and a masked reserved bit; "all" are all over the bits, and the reserved one;
"none" is none.

--compiled makes, from the rule code, what each step does to every state, compiles it and searches
with that: the same states and histories, many times as fast once it is made, which takes a
quarter of a minute.  It needs z3-solver and a C compiler; where one is missing it says so, and
the rule code itself runs.

exit status:
  0  no property is violated
  1  a property is violated; its shortest history is printed
  2  a wrong command line

examples:
  specctrl explore
  specctrl explore --variant rfc-v3 --depth 4
  specctrl explore --bits IBRS,RRSBA_DIS_S,BHI_DIS_S --jobs 2
  specctrl explore --bits IBRS,STIBP,SSBD,RRSBA_DIS_S,BHI_DIS_S --compiled
"""


def add_explore(commands: Any) -> None:
    """Add the command to the command line."""
    parser = command(
        commands, "explore", explore_command, "explore every history over a few bits", EPILOG)
    parser.add_argument("--variant", choices=list(VARIANTS), default="spec", help="default: spec")
    parser.add_argument("--bits", default=",".join(DEFAULT_BITS), metavar="NAMES",
                        help=f"out of {', '.join(BITS)}; default: {','.join(DEFAULT_BITS)}")
    parser.add_argument("--pairs", choices=list(PAIRS), default="few", help="default: few")
    parser.add_argument("--host", action="append", choices=list(HOSTS), metavar="HOST", dest="hosts",
                        help=f"one of: {'; '.join(HOSTS)}; may be repeated; default: all")
    parser.add_argument("--depth", type=at_least(1), metavar="N", help="stop after histories of N events")
    add_workers(parser)
    parser.add_argument("--compiled", action="store_true", help="search with compiled steps")
    parser.add_argument("--json", action="store_true", help="print figures and histories as JSON")


def explore_command(options: argparse.Namespace) -> int:
    """``specctrl explore``: explore, print what was found."""
    try:
        bits = bits_of(options.bits.split(","))
    except ValueError as error:
        print(f"specctrl: {error}", file=sys.stderr)
        return 2
    hosts = None if options.hosts is None else [HOSTS[name] for name in options.hosts]
    tasks = worlds(bits, hosts, PAIRS[options.pairs](bits))
    bar = Bar(sys.stderr)
    variant, work = VARIANTS[options.variant], chosen(options.compiled)
    from specctrl.exploration.spread import explore_spread  # not where a browser would load it
    from specctrl.shards import ShardError

    try:
        found = explore_spread(
            variant, tasks, bits, options.depth, workers_of(options, "fork"), bar, work, kept_results("explore"))
    except ShardError as error:
        print(f"specctrl: {error}", file=sys.stderr)
        return 2
    finally:
        bar.close()
    if options.json:
        print(json.dumps({**found.figures(), "histories": _histories(found)}, indent=1))
    else:
        _report(found)
    return 1 if found.violations else 0


def chosen(compiled: bool) -> Work:
    """How to explore: with compiled steps, if that is asked for and can be done here."""
    if not compiled:
        return search
    try:
        from specctrl.exploration.compiled.explorer import search as compiled_search
        from specctrl.targets.c import CannotBuild, compiler

        compiler()
    except ImportError as missing:
        print(f"specctrl: not compiled, the rule code runs: {missing.name} is not installed", file=sys.stderr)
        return search
    except CannotBuild as missing:
        print(f"specctrl: not compiled, the rule code runs: {missing}", file=sys.stderr)
        return search
    return compiled_search


class Bar:
    """A line on a terminal that says how far the exploration is; nothing elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream if stream.isatty() else None
        self.since = time.monotonic()
        self.drawn = self.since

    def __call__(self, states: int, transitions: int) -> None:
        """Draw the line anew, at most ten times a second."""
        now = time.monotonic()
        if self.stream is None or now - self.drawn < 0.1:
            return
        self.drawn = now
        rate = transitions / (now - self.since)
        self.stream.write(f"\r{states:,} states, {transitions:,} transitions, {rate:,.0f} a second \x1b[K")
        self.stream.flush()

    def close(self) -> None:
        """Take the line away."""
        if self.stream is not None:
            self.stream.write("\r\x1b[K")
            self.stream.flush()


def _histories(found: Exploration) -> dict[str, Any]:
    return {
        name: {"length": len(history), "host": history.host, "steps": [spelt(step) for step in history.steps()]}
        for name, history in found.violations.items()
    }


def _report(found: Exploration) -> None:
    for name, looked_at in PROPERTIES.items():
        history = found.violations.get(name)
        if history is None:
            print(f"holds     {name}\n          {looked_at.text}")
            continue
        print(f"VIOLATED  {name}, after {len(history)} events\n          {looked_at.text}")
        print(f"          host: {json.dumps(history.host)}")
        for step in history.steps():
            words = [f"{key}={_word(value)}" for key, value in spelt(step).items() if key != "op"]
            print(f"          {step['op']} {' '.join(words)}".rstrip())
    print(
        f"{found.states:,} states, {found.transitions:,} transitions, depth {found.depth}, "
        f"{found.worlds} worlds; {len(found.violations)} of {len(PROPERTIES)} properties violated"
    )


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
