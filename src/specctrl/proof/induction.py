"""One step of an induction: what holds of every host, policy, 64-bit value and history of any length.

The step is run, by the symbolic executor, from a vCPU that stands for every vCPU of the invariant; on every path
the invariant must hold again, and so must the claims.  A claim that fails comes with a concrete vCPU in which it does.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from specctrl.model import contract, posted
from specctrl.model.contract import MODE, Contract
from specctrl.model.kvm import entry, nested, vcpu, vm
from specctrl.model.kvm import variant as kvm_variant
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import HostFault, VmEntryFailed, VmxAbort, VmxInstructionError
from specctrl.model.registers import BHI_DIS_S, IBRS, RRSBA_DIS_S, SSBD, STIBP
from specctrl.proof import invariant as invariants
from specctrl.proof.any_vcpu import Numbers, Solved, Symbols, abstract, any_vcpu, exists, host_facts, same, subset
from specctrl.proof.equations import Contradiction, solve
from specctrl.proof.instrumented import Begun, watched
from specctrl.proof.invariant import Obligation, always, invariant
from specctrl.proof.repair import Model
from specctrl.proof.side_by_side import Seen
from specctrl.proof.steps import Step, find_step
from specctrl.proof.summaries import identity, summarized
from specctrl.proof.symbolic import Flag, Path, Word, current, evaluate, flag_term, paths, word_term
from specctrl.proof.terms import FALSE, TRUE, Term, all_of, any_of, not_, truth

PURE = (
    (contract, "requested_bits"),
    (contract, "supported_force_spec_ctrl"),
    (contract, "can_force"),
    (contract, "l1_asks"),
    (invariants, "requested_bits"),
    (entry, "requested_bits"),
    (entry, "can_force"),
    (vm, "can_force"),
    (posted, "requested_bits"),
    (kvm_variant, "arch_capabilities"),
    (nested, "l1_intercepts"),
    (vcpu, "l1_intercepts"),
)
"""Pure functions that the proofs summarize, in each module that names them."""


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
class Result:
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

    def add(self, other: "Result") -> None:
        """Take the figures of another result into this one."""
        self.paths += other.paths
        self.claim_paths += other.claim_paths
        self.obligations += other.obligations
        self.refutations += other.refutations

    def refuted(self) -> set[str]:
        """The claims that failed somewhere."""
        return {refutation.claim for refutation in self.refutations}


def agree(left: object, right: object) -> Term:
    """The term that mechanism and contract showed the same."""
    if isinstance(left, str | Seen | None) or isinstance(right, str | Seen | None):
        return truth(left is right)
    return same(left, right)


def perform_step(variant: Variant, step: Step, vcpu: Vcpu, values: Symbols) -> list[Obligation]:
    """Run one step on a vCPU and its contract; what must hold then.  On words as on ints."""
    before, beside = abstract(vcpu), abstract(vcpu)
    bitmap = (vcpu.vmcs02.intercept_read, vcpu.vmcs02.intercept_write)
    try:
        seen = step.act(vcpu, beside, values)
    except (HostFault, VmxInstructionError, VmEntryFailed, VmxAbort) as failure:
        return [Obligation("host_never_faults", type(failure).__name__, truth(False))]
    after = abstract(vcpu)
    owed = [Obligation("host_never_faults", "no fault", truth(True)), *always(vcpu, after)]
    owed += refinement(after, beside, seen)
    owed += [Obligation("saved_is_hardware", "exit", same(saved, register))
             for saved, register in getattr(vcpu, "exits", ())]
    merged = getattr(vcpu, "merged", bitmap)
    now = (vcpu.vmcs02.intercept_read, vcpu.vmcs02.intercept_write)
    owed += [Obligation("l2_bitmap_waits_for_a_merge", part, l2_bit(vcpu, bit, was))
             for part, bit, was in zip(("reads", "writes"), now, merged, strict=True)]
    owed += [Obligation(claim, part, term) for claim, part, term in of_this_step(step, before, vcpu, after, seen)]
    return owed


def l2_bit(vcpu: Vcpu, now: bool, merged: bool) -> Term:
    """The term that a bit of vmcs02's bitmap is as merged last, or intercepts since KVM passes nothing through."""
    taken_away = all_of(flag_term(now), not_(flag_term(vcpu.passthrough)))
    return any_of(flag_term(now) == flag_term(merged), taken_away)


def refinement(after: Contract, beside: Contract, seen: tuple[object, object]) -> Iterator[Obligation]:
    """Mechanism and contract agree on the outcome and on what the contract's record has."""
    for part, term in (
        ("outcome", agree(*seen)),
        ("view", same(after.guest_view, beside.guest_view)),
        ("userspace's mask", same(after.user_mask, beside.user_mask)),
        ("userspace's value", same(after.user_value, beside.user_value)),
        ("report", same(after.report, beside.report)),
        ("what is offered", same(after.offered, beside.offered)),
        ("what is announced", flag_term(after.announced) == flag_term(beside.announced)),
        ("mode", all_of([same_mode(getattr(after, name), getattr(beside, name)) for name in MODE])),
    ):
        yield Obligation("mechanism_refines_contract", part, term)


def same_mode(left: object, right: object) -> Term:
    """The term that a field of the mode is the same: a truth value, or what no operation computes."""
    if isinstance(left, bool | Flag) and isinstance(right, bool | Flag):
        return flag_term(left) == flag_term(right)
    return truth(left is right)


def of_this_step(
    step: Step, before: Contract, vcpu: Vcpu, after: Contract, seen: tuple[object, object]
) -> Iterator[tuple[str, str, Term]]:
    """What the claims say of this step alone."""
    got, expected = seen
    view_stays = same(after.guest_view, before.guest_view)
    if step.keeps_view:
        yield "view_survives", "view", view_stays
    elif got in (Seen.FAULT, Seen.EXIT, Seen.REFUSED, Seen.BLOCKED) or (got is Seen.REFLECTED and step.name != "RSM"):
        yield "view_survives", "refused: view", view_stays
    reads = ("guest reads IA32_SPEC_CTRL", "an entry of L1's store list: IA32_SPEC_CTRL")
    if step.name in reads and not isinstance(got, Seen):
        yield "guest_reads_what_it_wrote", "value", same(got, before.guest_view)
    if step.name == "KVM_GET_MSRS of IA32_SPEC_CTRL":
        yield "get_msrs_is_the_view", "value", same(got, before.guest_view)
    if (step.name.startswith("guest ") and "VIRTUAL" in step.name) or "read-only" in step.name:
        yield "virtual_msrs_are_gated", "outcome", agree(got, expected)
        newly = word_term(after.report) & ~word_term(before.report) & ~word_term(before.offered)
        yield "virtual_msrs_are_gated", "report", newly == 0
    if step.name == "platform reset" or (step.name == "INIT" and got is Seen.DONE):
        kept = truth(False) if step.name == "platform reset" else not_(flag_term(vcpu.init_withdraws_report))
        gone = all_of(same(after.report, 0), same(vcpu.force_mask, before.user_mask),
                      same(vcpu.force_value, before.user_value))
        yield "reset_leaves_userspace", "view", same(after.guest_view, 0)
        yield "reset_leaves_userspace", "pair", any_of(kept, gone)


# ---- running a proof


def discharge(path: Path, owed: list[Obligation]) -> Iterator[tuple[Obligation, Model]]:
    """The obligations that fail on a path, each with values: all at once, one by one if there is one."""
    given = {TRUE, *path.conditions}
    open_ = [item for item in owed if item.term not in given]
    if not open_ or path.failing([item.term for item in open_]) is None:
        return
    for item in open_:
        model = path.failing([item.term])
        if model is not None:
            yield item, model


def cases(vcpu: Vcpu) -> Iterator[list[Term]]:
    """The cases that a proof takes one by one: the control or none, or no MSR; writes intercepted or not."""
    control, there = flag_term(vcpu.cpu.has_control), flag_term(exists(vcpu.host))
    intercepted = flag_term(vcpu.vmcs.intercept_write)
    for case in ([control], [not_(control), there], [not_(there)]):
        if not vcpu.in_guest:
            yield case
        else:
            yield [*case, intercepted]
            yield [*case, not_(intercepted)]


def starts(
    variant: Variant, loaded: Loaded, in_guest: bool, more: Callable[[Vcpu], list[Term]] = lambda vcpu: []
) -> Iterator[tuple[Solved, list[Term]]]:
    """Each case of what a proof starts from: the values of a vCPU that has the invariant, and what they satisfy."""
    vcpu = any_vcpu(variant, Symbols(), loaded, in_guest)
    known = [*more(vcpu), *host_facts(vcpu.host).values(), *invariant(vcpu).values()]
    if variant.name == posted.RFC_V3.name:  # it has no form of the capability for a vCPU
        known += [same(vcpu.user_mask, vcpu.vm.user_mask), same(vcpu.user_value, vcpu.vm.user_value)]
        known.append(not_(flag_term(vcpu.cpu.entry_loads_shadow)))  # nor need it be refuted under both assumptions
    for case in cases(vcpu):
        try:
            solution, rest = solve([*case, *known])
        except Contradiction:
            continue
        yield Solved(solution), rest


def gather(
    run: Callable[[], list[Obligation]], values: Solved, result: Result,
    step: str, loaded: Loaded | None = None, in_guest: bool = False,
) -> None:
    """Run all paths and discharge what they owe; of each claim that fails, one failure with simple numbers.

    It is that of the path whose answers come first, so it does not depend on the order in which paths are found.
    """
    failed: dict[str, tuple[Path, Obligation, Model]] = {}
    refuted = result.refuted()
    for path, owed in paths(run):
        result.count(owed)
        earlier = refuted | {claim for claim, (other, *_) in failed.items() if other.answers < path.answers}
        here: dict[str, tuple[Path, Obligation, Model]] = {}
        for item, model in discharge(path, [item for item in owed if item.claim not in earlier]):
            here.setdefault(item.claim, (path, item, model))
        failed |= here
    for claim in sorted(failed):
        path, item, model = failed[claim]
        result.refutations.append(
            Refutation(claim, item.part, step, numbers(path, item, values, model), loaded, in_guest))


def assume_all(known: list[Term]) -> None:
    """Restrict the path to where all of this holds."""
    for term in known:
        current().assume(term)


def prove_step(variant: Variant, step: Step, loaded: Loaded, in_guest: bool) -> Result:
    """One step from every state of the invariant with this VMCS loaded and the guest running or not."""
    result, machine = Result(), watched(variant)
    with summarized(PURE):
        for values, known in starts(machine, loaded, in_guest):

            def run(values: Solved = values, known: list[Term] = known) -> list[Obligation]:
                assume_all(known)
                return perform_step(machine, step, any_vcpu(machine, values, loaded, in_guest), values)

            gather(run, values, result, step.name, loaded, in_guest)
    return result


FAMILIAR = (STIBP, SSBD, RRSBA_DIS_S, BHI_DIS_S, IBRS)
"""The bits that a counterexample is told in, if it can be; the last ones rather than the first."""
OTHERS = tuple(1 << number for number in (*range(30, -1, -1), *range(63, 30, -1)) if 1 << number not in FAMILIAR)
"""All other bits; bit 31 rather than another."""


def numbers(path: Path, failed: Obligation, values: Solved, model: Model) -> dict[str, int | bool]:
    """The simplest numbers with which an obligation fails: each word 0 if it can be, else with familiar bits, and few.

    What can be had is asked for in one order, and settles every bit.  So the numbers do not depend on the solver.
    """
    conditions = [*path.conditions, not_(failed.term)]

    def had(simpler: Term) -> bool:
        nonlocal model
        better = path.questions.model([*conditions, simpler], model)
        if better is None:
            return False
        model = better
        conditions.append(simpler)
        return True

    for _, value in sorted(values.asked.items()):
        if isinstance(value, Flag):
            had(not_(value.term))
        elif isinstance(value, Word) and not had(value.term == 0):
            bits = FAMILIAR if had(subset(value, sum(FAMILIAR))) else (*OTHERS, *FAMILIAR)
            for bit in bits:
                had(value.term & bit == 0)
    return {name: evaluate(model, value) for name, value in sorted(values.asked.items())}


def own_state(vcpu: Vcpu) -> Any:
    """Every field of a vCPU but its VM, which a VM's ioctl has changed by the time it comes to the vCPU."""
    return identity(tuple(getattr(vcpu, name) for name in Vcpu.__dataclass_fields__ if name != "vm"))


def prove_beginning(variant: Variant, step: Step, loaded: Loaded, in_guest: bool) -> Result:
    """That a step begins with the operation that it names, and with nothing before it."""
    def begins(vcpu: Any, values: Solved) -> bool:
        vcpu.stops_at = step.begins
        try:
            step.act(vcpu, abstract(vcpu), values)
        except Begun:
            return True
        return False

    return prove_untouched(variant, (step.name, loaded, in_guest), "begins so", begins)


def prove_once(variant: Variant, loaded: Loaded, in_guest: bool) -> Result:
    """That KVM_RUN changes nothing while the guest runs, nor an exit while KVM runs.

    So what begins with it does the same from the place where it has been performed already.
    """
    def again(vcpu: Any, _: Solved) -> bool:
        if in_guest:
            vcpu.run()
        else:
            vcpu.exit_guest()
        return True

    name = "KVM_RUN again" if in_guest else "an exit again"
    return prove_untouched(variant, (name, loaded, in_guest), "changes nothing", again)


def prove_untouched(
    variant: Variant, place: tuple[str, Loaded, bool], part: str, does: Callable[[Any, Solved], bool]
) -> Result:
    """That this, done at any vCPU of the invariant in one place, comes true and leaves every field as it was."""
    result, machine = Result(), watched(variant)
    with summarized(PURE):
        for values, known in starts(machine, *place[1:]):

            def run(values: Solved = values, known: list[Term] = known) -> list[Obligation]:
                assume_all(known)
                vcpu = any_vcpu(machine, values, *place[1:])
                before = own_state(vcpu)
                held = does(vcpu, values) and own_state(vcpu) == before
                return [Obligation("invariant_holds_again", part, truth(held))]

            gather(run, values, result, *place)
    return result


# ---- replay


@dataclass(frozen=True, slots=True)
class Replay:
    """A refutation run on plain integers: the vCPU before and after, and whether the claim fails there too."""

    before: Vcpu
    after: Vcpu
    failed: frozenset[tuple[str, str]]
    in_invariant: bool


def replay(variant: Variant, refutation: Refutation) -> Replay:
    """Build the vCPU of a refutation from its numbers, perform the step, and evaluate the same claims."""
    machine, values = watched(variant), Numbers(refutation.values)

    assert refutation.loaded is not None, "only a step of a vCPU can be replayed"
    loaded = refutation.loaded

    def make() -> Vcpu:
        return any_vcpu(machine, values, loaded, refutation.in_guest)

    before, after = make(), make()
    start = (*host_facts(before.host).values(), *invariant(before).values())
    owed = perform_step(machine, find_step(refutation.step), after, values)
    failed = frozenset((item.claim, item.part) for item in owed if item.term is FALSE)
    return Replay(before, after, failed, all(term is TRUE for term in start))
