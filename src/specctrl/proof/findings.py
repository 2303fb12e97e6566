"""What comes of a proof: obligations are discharged, and what fails has the simplest numbers in which it does."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from specctrl.model.kvm.state import Loaded
from specctrl.model.registers import BHI_DIS_S, IBRS, RRSBA_DIS_S, SSBD, STIBP
from specctrl.proof.any_vcpu import Solved, subset
from specctrl.proof.invariant import Obligation
from specctrl.proof.repair import Assignment
from specctrl.proof.symbolic import Flag, Path, Word, evaluate, paths
from specctrl.proof.terms import TRUE, Term, not_


@dataclass(frozen=True, slots=True)
class Refutation:
    """A part of a claim that fails in a step, and the values of a vCPU and of the step in which it does."""

    claim: str
    part: str
    step: str
    values: dict[str, int | bool]
    loaded: Loaded | None = None  # which VMCS is loaded before the step; None: there is no vCPU yet
    in_guest: bool = False  # whether the guest runs before the step


@dataclass(slots=True)
class Findings:
    """What came of proofs: paths, the paths and obligations of each claim, and what failed."""

    paths: int = 0
    claim_paths: Counter[str] = field(default_factory=Counter)
    obligations: Counter[str] = field(default_factory=Counter)
    refutations: list[Refutation] = field(default_factory=list)

    def count(self, owed: list[Obligation]) -> None:
        """Count one path and what is owed on it."""
        self.paths += 1
        per_claim = Counter(obligation.claim for obligation in owed)
        self.obligations += per_claim
        self.claim_paths.update(per_claim.keys())

    def add(self, other: "Findings") -> None:
        """Take the figures of another result into this one."""
        self.paths += other.paths
        self.claim_paths += other.claim_paths
        self.obligations += other.obligations
        self.refutations += other.refutations

    def refuted(self) -> set[str]:
        """The claims that failed somewhere."""
        return {refutation.claim for refutation in self.refutations}


def discharge(path: Path, owed: list[Obligation]) -> Iterator[tuple[Obligation, Assignment]]:
    """The obligations that fail on a path, each with values: all at once, one by one if there is one."""
    given = {TRUE, *path.conditions}
    open_ = [item for item in owed if item.term not in given]
    if not open_ or path.failing([item.term for item in open_]) is None:
        return
    for item in open_:
        assignment = path.failing([item.term])
        if assignment is not None:
            yield item, assignment


def gather(
    run: Callable[[], list[Obligation]], values: Solved, found: Findings,
    step: str, loaded: Loaded | None = None, in_guest: bool = False,
) -> None:
    """Run all paths and discharge what they owe; of each claim that fails, one failure with simple numbers.

    It is that of the path whose answers come first, so it does not depend on the order in which paths are found.
    """
    failed: dict[str, tuple[Path, Obligation, Assignment]] = {}
    refuted = found.refuted()
    for path, owed in paths(run):
        found.count(owed)
        earlier = refuted | {claim for claim, (other, *_) in failed.items() if other.answers < path.answers}
        here: dict[str, tuple[Path, Obligation, Assignment]] = {}
        for item, assignment in discharge(path, [item for item in owed if item.claim not in earlier]):
            here.setdefault(item.claim, (path, item, assignment))
        failed |= here
    for claim in sorted(failed):
        path, item, assignment = failed[claim]
        found.refutations.append(
            Refutation(claim, item.part, step, numbers(path, item, values, assignment), loaded, in_guest))


FAMILIAR = (STIBP, SSBD, RRSBA_DIS_S, BHI_DIS_S, IBRS)
"""The bits that a counterexample is told in, if it can be; the last ones rather than the first."""
OTHERS = tuple(1 << number for number in (*range(30, -1, -1), *range(63, 30, -1)) if 1 << number not in FAMILIAR)
"""All other bits; bit 31 rather than another."""


def numbers(path: Path, failed: Obligation, values: Solved, assignment: Assignment) -> dict[str, int | bool]:
    """The simplest numbers with which an obligation fails: each word 0 if it can be, else with familiar bits, and few.

    What can be had is asked for in one order, and settles every bit.  So the numbers do not depend on the solver.
    """
    conditions = [*path.conditions, not_(failed.term)]

    def had(simpler: Term) -> bool:
        nonlocal assignment
        better = path.questions.assignment([*conditions, simpler], assignment)
        if better is None:
            return False
        assignment = better
        conditions.append(simpler)
        return True

    for _, value in sorted(values.asked.items()):
        if isinstance(value, Flag):
            had(not_(value.term))
        elif isinstance(value, Word) and not had(value.term == 0):
            bits = FAMILIAR if had(subset(value, sum(FAMILIAR))) else (*OTHERS, *FAMILIAR)
            for bit in bits:
                had(value.term & bit == 0)
    return {name: evaluate(assignment, value) for name, value in sorted(values.asked.items())}
