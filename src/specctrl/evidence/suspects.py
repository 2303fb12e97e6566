"""Which rules a failing implementation may have got wrong: those whose code, changed, does what it did.

Each small change of the rule code that ran is made in the emulator, alone.  One with which the scenario goes as it
went, the wrong step included, points at the function that it is made in, and at the rules that bind that function.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType, FrameType, FunctionType
from typing import Any

from specctrl.evidence.collect import bound_functions
from specctrl.evidence.mutants import MODULES, mutants_of
from specctrl.evidence.run_pages import calls
from specctrl.model.outcomes import Misuse
from specctrl.rules import load_rules
from specctrl.scenario import Result, differences
from specctrl.scenario.format import OUTCOMES
from specctrl.scenario.machine import Machine
from specctrl.scenario.running import normalised

MOST = 3
"""So many rules are named at most."""

LINES = 100_000
"""So many lines may run until a change is given up; those of a scenario are some thousand."""


def suspects(result: Result) -> tuple[str, ...]:
    """The rules that a failure points at, those with the most reasons first; none if no change does what was seen.

    Those that the scenario names come first.  Nothing is said of a scenario that the emulator fails too.
    """
    if result.step is None or result.observed is None:
        return ()
    with calls() as called:
        right = _wrong_at(result)
    if right != []:
        return ()
    reasons: Counter[FunctionType] = Counter()
    for function, changes in _changes().items():
        if function.__code__ in called:
            for changed in changes:
                with _in_place(function, changed):
                    reasons[function] += _goes_wrong_alike(result)
    shares = {id: sum(reasons[each] for each in bound) / len(bound) for id, bound in _bound().items()}
    found = [id for id, share in shares.items() if share]
    return tuple(sorted(found, key=lambda id: (id not in result.scenario.rules, -shares[id], id))[:MOST])


def _wrong_at(result: Result) -> list[str] | None:
    """What the emulator shows wrong at the step that failed; None if it does not get there, or cannot perform it."""
    assert result.step is not None
    failing, observed = result.scenario.steps[result.step], result.observed or {}
    hidden = {key for key in failing.expect if key not in observed and key not in OUTCOMES}
    machine = Machine(result.scenario.host, assume=result.scenario.assume, record=False)
    wrong: list[str] = []
    for step in result.scenario.steps[:result.step + 1]:
        if wrong:
            return None
        try:
            wrong = differences(step, normalised(machine.perform(step.call())), hidden if step is failing else ())
        except Misuse:
            if not step.expect.get("misuse"):
                return None
    return wrong


def _goes_wrong_alike(result: Result) -> bool:
    """Whether the emulator, as it is now, goes wrong at the same step in the same way."""
    try:
        with _bounded():
            return result.why != "" and "; ".join(_wrong_at(result) or []) == result.why
    except (Exception, _NoEnd):  # whatever comes of a change that makes no sense there
        return False


@cache
def _bound() -> dict[str, list[FunctionType]]:
    return {id: bound for id, rule in load_rules().items() if (bound := list(bound_functions(rule)))}


@cache
def _changes() -> dict[FunctionType, list[CodeType]]:
    """The functions that rules bind, each with the codes of its mutants."""
    bound = {(each.__module__, each.__qualname__): each for functions in _bound().values() for each in functions}
    found: dict[FunctionType, list[CodeType]] = {}
    for module in MODULES:
        for mutant in mutants_of(module):
            name = mutant.key.split(":")[1]
            function = bound.get((f"specctrl.model.{module}", name))
            if function is not None:
                codes = _inside(compile(mutant.text, module, "exec", dont_inherit=True), name)
                found.setdefault(function, []).extend(codes)
    return found


def _inside(code: CodeType, name: str) -> Iterator[CodeType]:
    """The code of a function in the code of its module."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_qualname == name:
                yield each
            else:
                yield from _inside(each, name)


class _NoEnd(BaseException):
    pass


@contextmanager
def _bounded() -> Iterator[None]:
    """What runs meanwhile ends after :data:`LINES` lines, by an exception: a change may leave a loop without end."""
    left = LINES

    def count(_frame: FrameType, _event: str, _argument: object) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise _NoEnd
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def _in_place(function: FunctionType, changed: CodeType) -> Iterator[None]:
    """The function does something else meanwhile."""
    code = function.__code__
    function.__code__ = changed
    try:
        yield
    finally:
        function.__code__ = code
