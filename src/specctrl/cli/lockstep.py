"""``specctrl lockstep``: random histories on the emulator and on another implementation."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING, Any

from specctrl.cli.command import at_least, command
from specctrl.cli.workers import add_workers, kept_results, workers_of
from specctrl.scenario.format import KVM_ABI, LEVELS

if TYPE_CHECKING:  # what a browser lacks is imported when a command is carried out
    from specctrl.targets.adapter import AdapterTarget

IN_PART = 5_000
"""Events in a part of a comparison, which is one process's at a time."""

EVERY = 10
"""One of so many histories is made with each call of the rule code noted, which takes some times as long."""

ABSTRACT = "specctrl.model.contract.Contract"
"""The record that the proofs compare the mechanism with."""

EPILOG = f"""\
Histories of up to 50 random events each are performed by the emulator of this specification and by TARGET; after
every event everything that both show of every vCPU is compared.  The first history after which the two differ, or
which TARGET does not survive, is shortened and printed as a scenario, which `specctrl run FILE --target TARGET`
performs again.

TARGET is c (the C reference) or cmd:PROGRAM, a program that speaks the adapter protocol (see specctrl run).
With --level no step needs more than this level.  What PROGRAM answers with "unsupported" is left out and counted;
keys that it does not name in "observes" are not compared.

At the end it is said how often each rule of the level was reached: in how many histories, of one in {EVERY}, code ran
that the rule binds.

exit status:
  0  no difference
  1  a difference, or a target that broke
  2  a wrong command line
  3  the target cannot run here

examples:
  specctrl lockstep
  specctrl lockstep --events 1000000 --seed 7
  specctrl lockstep --level force --target cmd:./my-adapter > difference.json
"""


def add_lockstep(commands: Any) -> None:
    """Add the command to the command line."""
    parser = command(
        commands, "lockstep", lockstep_command, "compare another implementation on random histories", EPILOG)
    parser.add_argument("--target", default="c", metavar="TARGET", help="c (the default) or cmd:PROGRAM")
    parser.add_argument("--plain", action="store_true", help="cmd:PROGRAM speaks words; do not find out")
    parser.add_argument("--level", choices=list(LEVELS), default=KVM_ABI, help="of this level at most (default: all)")
    parser.add_argument("--events", type=at_least(1), default=100_000, metavar="N", help="how many; default: 100000")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="other histories; default: 0")
    add_workers(parser)


@dataclass(frozen=True, slots=True)
class Part:
    """A shard: some of the histories, compared with a target of its own; ``first`` is the number of the first."""

    target: str
    plain: bool
    level: str
    seed: int
    first: int
    events: int


@dataclass(slots=True)
class Compared:
    """What came of a part: its events, the first difference, what was left out, and which rules were reached."""

    events: int
    found: Any
    left_out: Counter[str]
    never: set[str]
    reached: Counter[str]
    histories: int


def parts(options: argparse.Namespace) -> list[Part]:
    """The parts of a comparison; where nothing is left out, their histories are those of one long part."""
    from specctrl.targets.lockstep import EVENTS

    of = (options.target, options.plain, options.level, options.seed)
    return [Part(*of, begun // EVENTS, min(IN_PART, options.events - begun))
            for begun in range(0, options.events, IN_PART)]


def opened(part: Part) -> "AdapterTarget":
    """The target of a part; CannotBuild if it is the C reference and cannot be compiled."""
    from specctrl.targets.adapter import AdapterTarget
    from specctrl.targets.c import CTarget

    return CTarget() if part.target == "c" else AdapterTarget(part.target[4:], part.plain)


def compare_part(part: Part, told: Callable[[int], None] = lambda done: None) -> Compared:
    """Compare a part; ``told`` hears after each history how many events were compared."""
    from specctrl.targets.lockstep import Finding, Lockstep

    target = opened(part)
    lockstep, reached = Lockstep(target, part.level), Reached(part.level)
    done, found = 0, None
    try:
        for said in lockstep.compare(part.events, part.seed, reached.watch, part.first):
            if isinstance(said, Finding):
                found = said
            else:
                done = said
                told(done)
        if found is None:
            target.close()
    finally:
        target.kill()
    return Compared(done, found, lockstep.left_out, lockstep.never, reached.counts, reached.histories)


def compare_parts(every: list[Part], options: argparse.Namespace, progress: "Progress") -> Iterator[Compared]:
    """What comes of each part, in order; a single one is compared here."""
    from specctrl.shards import carry_out

    workers = workers_of(options)
    if len(every) == 1 and not workers.scheduler:
        yield compare_part(every[0], progress.reached)
        return
    kept = kept_results("lockstep") if options.target == "c" else None  # another program may change meanwhile
    yield from carry_out(compare_part, every, workers, kept,
                         lambda done, _: progress.reached(min(done * IN_PART, options.events)))


def lockstep_command(options: argparse.Namespace) -> int:
    """``specctrl lockstep``: compare, and print the first difference as a scenario."""
    from specctrl.scenario import TargetFailed
    from specctrl.scenario.report import ALL_PASSED, MISMATCH, NOTHING_RAN, printable
    from specctrl.shards import ShardError
    from specctrl.targets.c import CannotBuild
    from specctrl.targets.lockstep import Lockstep, shortened

    if options.target != "c" and not options.target.startswith("cmd:"):
        print(f"specctrl: {options.target!r} is neither c nor cmd:PROGRAM", file=sys.stderr)
        return 2
    every, progress, reached = parts(options), Progress(options.events), Reached(options.level)
    left_out, never, done = Counter[str](), set[str](), 0
    try:
        target = opened(every[0])  # so that it is built once, and shortens what is found
    except CannotBuild as why:
        print(f"specctrl: target 'c' cannot run here: {why}", file=sys.stderr)
        return NOTHING_RAN
    try:
        for one in compare_parts(every, options, progress):
            if one.found is not None:
                progress.say("they differ; the history is being shortened")
                found = shortened(Lockstep(target, options.level), one.found)
                print(json.dumps(found.document(), indent=1))
                print(printable(str(found)), file=sys.stderr)
                return MISMATCH
            done += one.events
            left_out += one.left_out
            never |= one.never
            reached.add(one.reached, one.histories)
    except ShardError as error:
        print(f"specctrl: {error}", file=sys.stderr)
        return 2
    except TargetFailed as broken:
        print(f"specctrl: {printable(str(broken))}", file=sys.stderr)
        return MISMATCH
    finally:
        target.kill()
    for what, often in left_out.most_common():
        print(printable(f"unsupported, left out: {often:4}  {what}{' (no more)' if what in never else ''}"))
    print("\n".join(reached.lines()))
    of = f"seed {options.seed}, level {options.level}"
    print(f"{done} events, {of}: no difference ({progress.rate:.0f} events a second)")
    return ALL_PASSED


class Progress:
    """How far a comparison is, said on standard error now and then."""

    def __init__(self, events: int) -> None:
        self.events = events
        self.start = self.said = time.monotonic()
        self.rate = 0.0

    def reached(self, done: int) -> None:
        """So many events were compared."""
        if not done:
            return
        now = time.monotonic()
        self.rate = done / max(now - self.start, 0.001)
        if now - self.said >= (1 if sys.stderr.isatty() else 10):
            self.said = now
            self.say(f"{done} of {self.events} events, {(self.events - done) / self.rate:.0f} s to go")

    def say(self, what: str) -> None:
        """A line, which replaces the last one on a terminal."""
        end = "\r" if sys.stderr.isatty() else "\n"
        print(f"{what:<70}", end=end, file=sys.stderr, flush=True)


class Reached:
    """In how many histories the code of each rule of a level ran, of one history in :data:`EVERY`."""

    def __init__(self, top: str) -> None:
        from specctrl.evidence.collect import bound_code
        from specctrl.evidence.run_pages import calls
        from specctrl.rules import load_rules

        self.calls = calls
        rules = load_rules()
        self.bound: dict[str, set[CodeType]] = {id: bound_code(rules[id]) for id in rules_of(top)}
        self.counts: Counter[str] = Counter()
        self.histories = 0

    @contextmanager
    def watch(self, number: int) -> Iterator[None]:
        """Note what is called, if it is the turn of this history."""
        if number % EVERY:
            yield
            return
        with self.calls() as called:
            yield
        self.histories += 1
        self.counts.update(id for id, code in self.bound.items() if code & called)

    def add(self, counts: Counter[str], histories: int) -> None:
        """What was noted in so many other histories."""
        self.counts.update(counts)
        self.histories += histories

    def lines(self) -> list[str]:
        """Each rule with its count, the rarest first."""
        order = sorted(self.bound, key=lambda id: (self.counts[id], id))
        never = sum(not self.counts[id] for id in order)
        return [*(f"reached: {self.counts[id]:6}  {id}" for id in order),
                f"{len(order)} rules, {never} of them never reached in {self.histories} histories"]


def rules_of(top: str) -> list[str]:
    """The rules of a hypervisor that scenarios up to this level name, as far as code here runs them.

    Rules that bind the abstract contract alone are left out: the machine is the mechanism.
    """
    from specctrl.rules import data_folder, load_rules
    from specctrl.scenario import read
    from specctrl.scenario.levels import ORDER, level

    rules = load_rules()
    named = {id for scenario in read([data_folder("vectors")]) if scenario.profile == "spec"
             if ORDER.index(level(scenario)) <= ORDER.index(top) for id in scenario.rules}
    ours = (id for id in named if rules[id].layer in ("contract", "mechanism"))
    return sorted(id for id in ours if any(not code.startswith(ABSTRACT) for code in rules[id].code))
