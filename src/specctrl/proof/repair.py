"""Values under which conditions hold, found by changing values under which other conditions hold.

Two neighbouring paths differ in one answer, so a few changed bits often lead from one to the other.
What is tried here is a guess: it follows one condition down to a name and changes that, without a look at the other
conditions.  Nothing rests on it.  :func:`repaired` returns values only after it evaluated *every* condition under them.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from specctrl.model.words import WORD
from specctrl.proof.terms import (
    ALL,
    BITAND,
    BITOR,
    BITXOR,
    COMPLEMENT,
    CONSTANT,
    EQUAL,
    IF,
    NAME,
    NOT,
    Term,
    value_of,
)

ROUNDS = 4
"""How many conditions may be mended, one after the other."""
BITS = (1 << 0, 1 << 10, 1 << 63, 1 << 6, 1 << 1, 1 << 2)
"""The bits that are tried where two words must differ in any: IBRS first, then those of other features."""


class Assignment:
    """Values of names, under which every term has a value; a name that is not among them is 0 or False."""

    def __init__(self, names: dict[int, Any]) -> None:
        self.names = names  # by serial
        self._known = dict(names)

    def value(self, term: Term) -> Any:
        """What the term is: an int or a bool."""
        return value_of(term, self._known)

    def holds(self, conditions: Iterable[Term]) -> bool:
        """Whether each of these conditions is true."""
        return all(value_of(condition, self._known) for condition in conditions)


NOTHING_SET = Assignment({})
"""Every word 0, every flag False."""


class Stuck(Exception):
    """No change is known that would help."""


Changes = dict[int, Any]
"""New values of names, by serial."""


def repaired(near: Assignment, conditions: Sequence[Term]) -> Assignment | None:
    """Values for which all conditions hold, made from others; None if none are found, which says nothing."""
    found = near
    for _ in range(ROUNDS):
        wrong = next((condition for condition in reversed(conditions) if not found.value(condition)), None)
        if wrong is None:
            return found
        try:
            changes = with_truth(wrong, True, found, {})
        except Stuck:
            return None
        found = Assignment(found.names | changes)
    return found if found.holds(conditions) else None


def first_that_goes(ways: Iterable[Callable[[], Changes]]) -> Changes:
    """The first of several ways that is not stuck."""
    for way in ways:
        try:
            return way()
        except Stuck:
            continue
    raise Stuck


def with_truth(term: Term, wanted: bool, near: Assignment, changes: Changes) -> Changes:
    """Changes, and those before, that probably give a condition this truth value."""
    if term.kind is CONSTANT:
        if term.value is not wanted:
            raise Stuck
        return changes
    if term.kind is NAME:
        return changes | {term.serial: wanted}
    if term.kind is NOT:
        return with_truth(term.parts[0], not wanted, near, changes)
    if term.kind is EQUAL:
        return with_equality(term, wanted, near, changes)
    if term.kind is IF:
        condition, then, otherwise = term.parts
        for part, chosen in ((then, True), (otherwise, False)):
            if near.value(part) is wanted:
                return with_truth(condition, chosen, near, changes)
        return with_truth(then if near.value(condition) else otherwise, wanted, near, changes)
    if (term.kind is ALL) is wanted:  # each part must be so
        for part in term.parts:
            if near.value(part) is not wanted:
                changes = with_truth(part, wanted, near, changes)
        return changes
    return first_that_goes(partial(with_truth, part, wanted, near, changes) for part in term.parts)


def with_equality(term: Term, wanted: bool, near: Assignment, changes: Changes) -> Changes:
    """The same for an equality of words or of truth values."""
    left, right = term.parts
    if not left.wide:
        return first_that_goes(
            partial(with_truth, one, near.value(other) is wanted, near, changes)
            for one, other in ((left, right), (right, left)))
    if wanted:
        return first_that_goes(
            partial(with_bits, one, near.value(other), WORD, near, changes)
            for one, other in ((left, right), (right, left)))
    return first_that_goes(
        partial(with_bits, one, near.value(one) ^ bit, bit, near, changes) for bit in BITS for one in (left, right))


def with_bits(term: Term, wanted: int, where: int, near: Assignment, changes: Changes) -> Changes:
    """Changes with which a word probably has the bits of ``wanted`` in every place of ``where``."""
    now = near.value(term)
    wrong = (now ^ wanted) & where
    if not wrong:
        return changes
    if term.kind is NAME:
        old = changes.get(term.serial, now)
        return changes | {term.serial: (old & ~where) | (wanted & where)}
    if term.kind is COMPLEMENT:
        return with_bits(term.parts[0], ~wanted & WORD, where, near, changes)
    if term.kind in (BITAND, BITOR):
        ones = wanted if term.kind is BITAND else ~wanted & WORD
        for part in term.parts:  # a 1 of & needs a 1 in every part; so does a 0 of | a 0
            if (near.value(part) ^ wanted) & wrong & ones:
                changes = with_bits(part, wanted, wrong & ones, near, changes)
        if not wrong & ~ones:
            return changes
        return first_that_goes(  # elsewhere one part is enough
            partial(with_bits, part, wanted, wrong & ~ones, near, changes) for part in term.parts)
    if term.kind is BITXOR:
        left, right = term.parts
        return first_that_goes(
            partial(with_bits, one, wanted ^ near.value(other), where, near, changes)
            for one, other in ((left, right), (right, left)))
    if term.kind is IF:
        condition, then, otherwise = term.parts
        ways = [partial(with_truth, condition, chosen, near, changes)
                for part, chosen in ((then, True), (otherwise, False)) if not (near.value(part) ^ wanted) & where]
        taken = then if near.value(condition) else otherwise
        return first_that_goes([*ways, partial(with_bits, taken, wanted, where, near, changes)])
    raise Stuck  # a constant, or a difference
