"""Solves the equations of a proof's assumptions, so that most of what must be shown is then the same term twice."""

from specctrl.proof.terms import ALL, ANY, EQUAL, FALSE, NAME, NOT, TRUE, Term, names_in, not_, substitute


class Contradiction(Exception):
    """The assumptions cannot hold together."""


def facts_in(fact: Term) -> list[Term]:
    """A fact as a list of facts that hold together: a conjunction taken apart."""
    if fact.kind is ALL:
        return [one for part in fact.parts for one in facts_in(part)]
    if fact.kind is NOT and fact.parts[0].kind is ANY:
        return [one for part in fact.parts[0].parts for one in facts_in(not_(part))]
    return [fact]


def equation(fact: Term) -> tuple[Term, Term] | None:
    """The fact as name and value, if it says what a name is."""
    if fact.kind is NAME:
        return fact, TRUE
    if fact.kind is NOT and fact.parts[0].kind is NAME:
        return fact.parts[0], FALSE
    if fact.kind is EQUAL:
        left, right = fact.parts
        for name, value in ((left, right), (right, left)):
            if name.kind is NAME and name.serial not in names_in(value):
                return name, value
    return None


def solve(facts: list[Term]) -> tuple[dict[str, Term], list[Term]]:
    """What the facts say that names are, and the facts that remain; Contradiction if they say that nothing exists.

    >>> from specctrl.proof.terms import variable
    >>> x, y = variable("x", wide=True), variable("y", wide=True)
    >>> solve([x == y, x & y != 0])
    ({'x': y}, [not (y == 0x0)])
    """
    found: list[tuple[Term, Term]] = []
    todo, rest = [one for fact in facts for one in facts_in(fact)], []
    while todo:
        fact = todo.pop(0)
        if fact is TRUE:
            continue
        if fact is FALSE:
            raise Contradiction
        solved = equation(fact)
        if solved is None:
            rest.append(fact)
            continue
        found = [(name, substitute(value, *solved)) for name, value in found] + [solved]
        todo = [one for fact in (*todo, *rest) for one in facts_in(substitute(fact, *solved))]
        rest = []
    return {name.value: value for name, value in found}, rest
