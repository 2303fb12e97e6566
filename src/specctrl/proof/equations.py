"""Solves the equations of a proof's assumptions, so that most of what must be shown is then the same term twice."""

from typing import Any

import z3

from specctrl.proof.symbolic import Term


class Contradiction(Exception):
    """The assumptions cannot hold together."""


def parts(fact: Term) -> list[Term]:
    """A fact as a list of facts that hold together: a conjunction taken apart."""
    fact = z3.simplify(fact)
    if z3.is_and(fact):
        return [part for child in fact.children() for part in parts(child)]
    if z3.is_not(fact) and z3.is_or(fact.arg(0)):
        return [part for child in fact.arg(0).children() for part in parts(z3.Not(child))]
    return [fact]


def names_in(term: Term) -> set[str]:
    """The names of the words and flags in a term."""
    found: set[str] = set()
    todo, done = [term], set()
    while todo:
        node = todo.pop()
        if node.get_id() in done:
            continue
        done.add(node.get_id())
        if is_name(node):
            found.add(node.decl().name())
        todo += node.children()
    return found


def is_name(term: Term) -> bool:
    """Whether a term is a name that may have any value."""
    return bool(z3.is_const(term) and term.decl().kind() == z3.Z3_OP_UNINTERPRETED)


def equation(fact: Term) -> tuple[Term, Term] | None:
    """The fact as name and value, if it says what a name is."""
    if is_name(fact):
        return fact, z3.BoolVal(True)
    if z3.is_not(fact) and is_name(fact.arg(0)):
        return fact.arg(0), z3.BoolVal(False)
    if z3.is_eq(fact):
        for left, right in ((fact.arg(0), fact.arg(1)), (fact.arg(1), fact.arg(0))):
            if is_name(left) and left.decl().name() not in names_in(right):
                return left, right
    return None


def solve(facts: list[Term]) -> tuple[dict[str, Any], list[Term]]:
    """What the facts say that names are, and the facts that remain; Contradiction if they say that nothing exists.

    >>> x, y = z3.BitVecs("x y", 64)
    >>> solve([x == y, x & y != 0])
    ({'x': y}, [Not(y == 0)])
    """
    found: list[tuple[Term, Term]] = []
    todo, rest = [part for fact in facts for part in parts(fact)], []
    while todo:
        fact = todo.pop(0)
        if z3.is_true(fact):
            continue
        if z3.is_false(fact):
            raise Contradiction
        solved = equation(fact)
        if solved is None:
            rest.append(fact)
            continue
        found = [(name, z3.simplify(z3.substitute(value, solved))) for name, value in found] + [solved]
        todo = [part for item in (*todo, *rest) for part in parts(z3.substitute(item, solved))]
        rest = []
    return {name.decl().name(): value for name, value in found}, rest
