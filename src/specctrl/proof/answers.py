"""How the prover answers whether conditions can hold together, and whether what is owed follows from them.

A question is answered in this order, by the first that can:

1. Values near by.  Those of the neighbouring path, and then those that Z3 gave last, are changed a little
   (:mod:`specctrl.proof.repair`).  They count only if every condition of this path is true under them.
2. An impossibility that Z3 found before: a set of conditions that cannot hold together (an unsatisfiable core).
   It counts only if *all* of its conditions are among those asked about.
3. Z3.  The values of its "possible" are evaluated as well: a "yes" is always a witness, whoever found it.

That something follows is such a set too: the premises, and the negation of what follows.  So what was shown once (a
*lemma*) is used again exactly where its premises are among the conditions.

What a proof trusts, then: Z3, for every "impossible" (the sets in 2 are its own unsatisfiable cores); the translation
:func:`translated`; the folding in :mod:`specctrl.proof.terms`; and that a set is looked up whole.
Neither repair nor memory can turn a claim that fails into one that is proven, if these are right;
tests/proof/test_prover_sound.py breaks each of them in turn and sees that it is noticed.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import z3

from specctrl.proof.repair import NOTHING_SET, Assignment, repaired
from specctrl.proof.terms import (
    FALSE,
    Term,
    all_of,
    not_,
    variable,
)

WIDTH = 64
KEPT = 10
"""How many of the values that Z3 gave are tried again."""


class SolverError(Exception):
    """Z3 gave up, or its answer is not one to what was asked."""


class Impossible:
    """Sets of conditions that cannot hold together, as Z3 found them.

    They are true of their terms alone, whichever rule code these came from, so they are kept as long as the process.
    """

    def __init__(self) -> None:
        self._by_latest: dict[int, list[frozenset[int]]] = {}

    def add(self, conditions: Iterable[Term]) -> None:
        """Remember that these cannot hold together."""
        found = frozenset(condition.serial for condition in conditions)
        self._by_latest.setdefault(max(found, default=FALSE.serial), []).append(found)

    def among(self, serials: set[int]) -> bool:
        """Whether all conditions of a remembered set are among these."""
        return any(found <= serials for latest in serials for found in self._by_latest.get(latest, ()))


IMPOSSIBLE = Impossible()
"""What is remembered in this process."""


class Questions:
    """Answers questions about conditions that have much in common, such as those of one run of the executor."""

    def __init__(self) -> None:
        self._solver: Any = None
        self._labels: dict[int, Any] = {}
        self._given: deque[Assignment] = deque(maxlen=KEPT)

    def assignment(self, conditions: Sequence[Term], near: Assignment = NOTHING_SET) -> Assignment | None:
        """Values for which all conditions hold; None if there are none."""
        found = repaired(near, conditions)
        if found is not None:
            return found
        if IMPOSSIBLE.among({condition.serial for condition in conditions}):
            return None
        for given in self._given:
            found = repaired(given, conditions)
            if found is not None:
                return found
        answer = self.ask(conditions)
        if isinstance(answer, Assignment):
            self._given.appendleft(answer)
            return answer
        IMPOSSIBLE.add(answer)
        return None

    def failing(
        self, conditions: Sequence[Term], owed: Sequence[Term], near: Assignment = NOTHING_SET
    ) -> Assignment | None:
        """Values for which all conditions hold and something that is owed does not; None if there are none."""
        if near.holds(conditions) and not near.holds(owed):
            return near
        serials = {condition.serial for condition in conditions}
        open_ = [term for term in owed if not IMPOSSIBLE.among(serials | {not_(term).serial})]
        if not open_:
            return None
        broken = not_(all_of(open_))
        answer = self.ask([*conditions, broken])
        if isinstance(answer, Assignment):
            return answer
        premises = [condition for condition in answer if condition is not broken]
        for term in open_:  # each follows from what all together follow from
            IMPOSSIBLE.add([*premises, not_(term)])
        return None

    def ask(self, conditions: Sequence[Term]) -> Assignment | list[Term]:
        """Ask Z3: values for which all conditions hold, or those conditions that cannot hold together."""
        if self._solver is None:
            self._solver = z3.SolverFor("QF_BV")
        labels = {str(label): condition for condition in conditions for label in [self.label(condition)]}
        result = self._solver.check([self._labels[condition.serial] for condition in conditions])
        if result == z3.unknown:
            raise SolverError(f"Z3 gave up: {self._solver.reason_unknown()}")
        if result == z3.sat:
            found = values_of(self._solver.model())
            if not found.holds(conditions):
                raise SolverError("values that Z3 gave do not satisfy the conditions: a term means two things")
            return found
        return [labels[str(label)] for label in self._solver.unsat_core()]

    def label(self, condition: Term) -> Any:
        """A flag of Z3's that is true exactly where the condition is, so that each is translated once."""
        found = self._labels.get(condition.serial)
        if found is None:
            found = self._labels[condition.serial] = z3.Bool(f"?{condition.serial}")
            self._solver.add(found == translated(condition))
        return found


def values_of(model: Any) -> Assignment:
    """The values of a model of Z3's; labels left out."""
    names: dict[int, Any] = {}
    for declaration in model:
        name, value = declaration.name(), model[declaration]
        if not name.startswith("?"):
            wide = z3.is_bv_value(value)
            names[variable(name, wide).serial] = value.as_long() if wide else z3.is_true(value)
    return Assignment(names)


_TRANSLATED: dict[int, Any] = {}


def translated(term: Term) -> Any:
    """The term as one of Z3's."""
    found = _TRANSLATED.get(term.serial)
    if found is None:
        found = _TRANSLATED[term.serial] = _translation(term, [translated(part) for part in term.parts])
    return found


def _translation(term: Term, parts: list[Any]) -> Any:
    match term.kind:
        case "constant":
            return z3.BitVecVal(term.value, WIDTH) if term.wide else z3.BoolVal(term.value)
        case "name":
            return z3.BitVec(term.value, WIDTH) if term.wide else z3.Bool(term.value)
        case "not":
            return z3.Not(parts[0])
        case "all":
            return z3.And(parts)
        case "any":
            return z3.Or(parts)
        case "if":
            return z3.If(*parts)
        case "==":
            return parts[0] == parts[1]
        case "~":
            return ~parts[0]
        case "&":
            return reduce(lambda left, right: left & right, parts)
        case "|":
            return reduce(lambda left, right: left | right, parts)
        case "^":
            return parts[0] ^ parts[1]
        case "-":
            return parts[0] - parts[1]
    raise AssertionError(term.kind)
