"""The prover beside the plain solver: the same proofs where Z3 is asked every question, and nothing is remembered."""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from functools import partial

from figures import Figure

from specctrl.model.variants import VARIANTS
from specctrl.proof import answers
from specctrl.proof.prove import prove
from specctrl.proof.terms import Term, all_of, not_
from specctrl.proof.theorems import THEOREMS

AREA = "proofs"
EVERY = 4
"""Each so many-th theorem is proven."""


def asked_plainly() -> None:
    """Have Z3 answer everything in this process."""
    def assignment(self: answers.Questions, conditions: Sequence[Term],
                   near: object = None) -> answers.Assignment | None:
        found = self.ask(conditions)
        return found if isinstance(found, answers.Assignment) else None

    def failing(self: answers.Questions, conditions: Sequence[Term], owed: Sequence[Term],
                near: object = None) -> answers.Assignment | None:
        return assignment(self, [*conditions, not_(all_of(owed))])

    answers.Questions.assignment = assignment  # type: ignore[assignment,method-assign]  # of this process
    answers.Questions.failing = failing  # type: ignore[assignment,method-assign]  # of this process


def proven(plain: bool) -> tuple[int, float]:
    """Paths, and seconds of processor time."""
    if plain:
        asked_plainly()
    begin, paths = time.process_time(), 0
    for name in list(THEOREMS)[::EVERY]:
        found = prove(VARIANTS["spec"], name)
        assert not found.refutations, name
        paths += found.paths
    return paths, time.process_time() - begin


def measure() -> Iterator[Figure]:
    """Both, each in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        (paths, seconds), (same, plainly) = (pool.apply(partial(proven, plain)) for plain in (False, True))
    assert paths == same
    yield Figure(AREA, f"each {EVERY}th theorem, Z3 asked all", plainly, "seconds")
    ratio = seconds / plainly
    yield Figure(AREA, f"each {EVERY}th theorem, as it is proven", seconds, "seconds", "the plain solver", ratio)
