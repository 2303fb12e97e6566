"""Choosing scenarios of a set: by rule, level, operation, and by who wrote them."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from specctrl.rules import RuleError, load_rules
from specctrl.scenario import Scenario
from specctrl.scenario.format import LEVELS, OPERATIONS
from specctrl.scenario.kinds import one_of
from specctrl.scenario.levels import level
from specctrl.scenario.published import is_generated

WRITERS = ("hand", "generated")
"""Who wrote a scenario."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted; of each that is given, one must fit. Empty: all."""

    rules: Sequence[str] = ()
    levels: Sequence[str] = ()
    ops: Sequence[str] = ()
    kind: str | None = None

    def fits(self, scenario: Scenario) -> bool:
        """Whether a scenario is wanted."""
        return (
            (not self.rules or any(rule in scenario.rules for rule in self.rules))
            and (not self.levels or level(scenario) in self.levels)
            and (not self.ops or any(step.op in self.ops for step in scenario.steps))
            and (self.kind is None or written_by(scenario) == self.kind)
        )

    def of(self, scenarios: Iterable[Scenario]) -> list[Scenario]:
        """The scenarios that are wanted, in their order."""
        return [scenario for scenario in scenarios if self.fits(scenario)]


def written_by(scenario: Scenario) -> str:
    """Whether a scenario was written by hand or generated."""
    return WRITERS[is_generated(scenario.id)]


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options of a selection to a command."""
    group = parser.add_argument_group("selection", "each but --kind may be repeated; of several, one must fit")
    group.add_argument("--rule", action="append", default=[], metavar="ID", type=_rule, help="that name this rule")
    group.add_argument("--level", action="append", default=[], choices=list(LEVELS), help="of this level")
    group.add_argument("--op", action="append", default=[], metavar="NAME", type=_op, help="with this operation")
    group.add_argument("--kind", choices=WRITERS, help="written by hand, or generated")


def _rule(id: str) -> str:
    try:
        rules = load_rules()
    except RuleError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if id not in rules:
        raise argparse.ArgumentTypeError(f"no rule has the id {id!r}; {one_of(rules, id)}")
    return id


def _op(name: str) -> str:
    if name not in OPERATIONS:
        raise argparse.ArgumentTypeError(f"no operation is named {name!r}; {one_of(OPERATIONS, name)}")
    return name


def selection(options: argparse.Namespace) -> Selection:
    """The selection of a command line."""
    return Selection(options.rule, options.level, options.op, options.kind)
