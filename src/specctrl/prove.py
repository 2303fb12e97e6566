"""Proofs by induction: what holds of every host, policy, 64-bit value and history of any length.

Each step is run, by the symbolic executor, from a vCPU that stands for every vCPU of the invariant; on every path
the invariant must hold again, and so must the claims.  A claim that fails comes with a concrete vCPU in which it does.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import z3

from specctrl import claims, contract, posted
from specctrl.claims import CLAIMS, Obligation, always, invariant
from specctrl.contract import Contract
from specctrl.equations import Contradiction, solve
from specctrl.kvm import entry, nested, vcpu, vm
from specctrl.kvm.state import Loaded
from specctrl.kvm.variant import Variant
from specctrl.kvm.vcpu import Vcpu
from specctrl.outcomes import Fault, HostFault, MsrRefused, VmEntryFailed, VmxAbort, VmxInstructionError
from specctrl.states import Solved, Symbols, abstract, any_vcpu, exists, host_facts, same
from specctrl.steps import STEPS, Seen, Step
from specctrl.summaries import identity, summarize, summarized
from specctrl.symbolic import Term, current, evaluate, failing, flag_term, paths

PURE = (
    (contract, "requested_bits"),
    (contract, "supported_force_spec_ctrl"),
    (claims, "requested_bits"),
    (entry, "requested_bits"),
    (entry, "can_force"),
    (vm, "can_force"),
    (posted, "requested_bits"),
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
    loaded: Loaded
    in_guest: bool
    values: dict[str, int | bool]


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


class Begun(Exception):
    """The operation came to the one that it must begin with."""


@cache
def watched(variant: Variant) -> Variant:
    """The variant, with vCPUs that note what the claims speak of; they do what the variant's do."""
    base: Any = variant.vcpu
    made: dict[Any, Any] = {}

    def brief(method: Callable[[Any], Any], vcpu: Any) -> Any:
        """A pure method of a vCPU, summarized once for each of the few things that such methods look at."""
        looked_at = (vcpu.cpuid.spec_ctrl, vcpu.cpuid.arch_capabilities, vcpu.arch_capabilities,
                     vcpu.virtual_enumeration, vcpu.cpu.has_control, vcpu.force_mask)
        key = (method, *(identity(value) for value in looked_at))
        if key not in made:
            made[key] = (looked_at, summarize(lambda: method(vcpu)))
        return made[key][1]

    class Watched(base):  # type: ignore[misc]  # the variant's own class
        __slots__ = ("exits", "refusal", "stops_at")

        def run(self) -> None:
            if getattr(self, "stops_at", "") == "run":
                raise Begun
            base.run(self)

        def exit_guest(self) -> None:
            if getattr(self, "stops_at", "") == "exit_guest":
                raise Begun
            try:
                base.exit_guest(self)
            except Fault as fault:
                raise HostFault(fault.vector) from None

        def shows_enumeration(self) -> Any:
            return brief(base.shows_enumeration, self)

        def shows_mitigation_ctrl(self) -> Any:
            return brief(base.shows_mitigation_ctrl, self)

        def may_pass_through(self) -> Any:
            return brief(base.may_pass_through, self)

        def restore_host_spec_ctrl(self) -> None:
            self.exits = (*getattr(self, "exits", ()), (self.saved, self.cpu.spec_ctrl))
            base.restore_host_spec_ctrl(self)

        def emulate_rdmsr(self, msr: int) -> Any:
            try:
                return base.emulate_rdmsr(self, msr)
            except MsrRefused as refused:
                self.refusal = refused.reason
                raise

        def emulate_wrmsr(self, msr: int, value: int) -> None:
            try:
                base.emulate_wrmsr(self, msr, value)
            except MsrRefused as refused:
                self.refusal = refused.reason
                raise

    return Variant(variant.name, variant.processor, variant.vmcs, variant.vm, Watched)


def agree(left: object, right: object) -> Term:
    """The term that mechanism and contract showed the same."""
    if isinstance(left, str | Seen | None) or isinstance(right, str | Seen | None):
        return z3.BoolVal(left is right)
    return same(left, right)


def perform_step(variant: Variant, step: Step, vcpu: Vcpu, values: Symbols) -> list[Obligation]:
    """Run one step on a vCPU and its contract; what must hold then.  On words as on ints."""
    before, beside = abstract(vcpu), abstract(vcpu)
    try:
        seen = step.act(vcpu, beside, values)
    except (HostFault, VmxInstructionError, VmEntryFailed, VmxAbort) as failure:
        return [Obligation("host_never_faults", type(failure).__name__, z3.BoolVal(False))]
    after = abstract(vcpu)
    owed = [Obligation("host_never_faults", "no fault", z3.BoolVal(True)), *always(vcpu, after)]
    owed += refinement(after, beside, seen)
    owed += [Obligation("saved_is_hardware", "exit", same(saved, register))
             for saved, register in getattr(vcpu, "exits", ())]
    owed += [Obligation(claim, part, term) for claim, part, term in of_this_step(step, before, vcpu, after, seen)]
    return owed


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
        ("level", z3.BoolVal(after.level == beside.level)),
    ):
        yield Obligation("mechanism_refines_contract", part, term)


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
    if step.name in ("guest reads IA32_SPEC_CTRL", "an entry of L1's store list: IA32_SPEC_CTRL"):
        if not isinstance(got, Seen):
            yield "guest_reads_what_it_wrote", "value", same(got, before.guest_view)
    if step.name == "KVM_GET_MSRS of IA32_SPEC_CTRL":
        yield "get_msrs_is_the_view", "value", same(got, before.guest_view)
    if step.name.startswith("guest ") and "VIRTUAL" in step.name or "read-only" in step.name:
        yield "virtual_msrs_are_gated", "outcome", agree(got, expected)
        newly = z3.simplify(_word(after.report) & ~_word(before.report) & ~_word(before.offered))
        yield "virtual_msrs_are_gated", "report", newly == 0
    if step.name == "platform reset" or (step.name == "INIT" and got is Seen.DONE):
        kept = z3.BoolVal(False) if step.name == "platform reset" else z3.Not(flag_term(vcpu.init_withdraws_report))
        gone = z3.And(same(after.report, 0), same(vcpu.force_mask, before.user_mask),
                      same(vcpu.force_value, before.user_value))
        yield "reset_leaves_userspace", "view", same(after.guest_view, 0)
        yield "reset_leaves_userspace", "pair", z3.Or(kept, gone)


def _word(value: object) -> Term:
    from specctrl.symbolic import word_term

    return word_term(value)


# ---- running a proof


def discharge(conditions: list[Term], owed: list[Obligation]) -> Iterator[tuple[Obligation, Any]]:
    """The obligations that fail under the conditions, each with a model: all at once, one by one if there is one."""
    given = {condition.get_id() for condition in conditions}
    open_ = []
    for obligation in owed:
        term = z3.simplify(obligation.term)
        if not z3.is_true(term) and term.get_id() not in given:
            open_.append((obligation, term))
    if not open_ or failing(conditions, [term for _, term in open_]) is None:
        return
    for obligation, term in open_:
        model = failing(conditions, [term])
        if model is not None:
            yield obligation, model


def cases(vcpu: Vcpu) -> Iterator[list[Term]]:
    """The cases that a proof takes one by one: the control or none, or no MSR; writes intercepted or not."""
    control, there = flag_term(vcpu.cpu.has_control), flag_term(exists(vcpu.host))
    intercepted = flag_term(vcpu.vmcs.intercept_write)
    for case in ([control], [z3.Not(control), there], [z3.Not(there)]):
        if not vcpu.in_guest:
            yield case
        else:
            yield [*case, intercepted]
            yield [*case, z3.Not(intercepted)]


def starts(variant: Variant, loaded: Loaded, in_guest: bool) -> Iterator[tuple[Solved, list[Term]]]:
    """Each case of what a proof starts from: the values of a vCPU that has the invariant, and what they satisfy."""
    vcpu = any_vcpu(variant, Symbols(), loaded, in_guest)
    known = [*host_facts(vcpu.host).values(), *invariant(vcpu).values()]
    for case in cases(vcpu):
        try:
            solution, rest = solve([*case, *known])
        except Contradiction:
            continue
        yield Solved(solution), rest


def prove_step(variant: Variant, step: Step, loaded: Loaded, in_guest: bool) -> Result:
    """One step from every state of the invariant with this VMCS loaded and the guest running or not."""
    result, machine = Result(), watched(variant)
    with summarized(PURE):
        for values, known in starts(machine, loaded, in_guest):

            def run(values: Solved = values, known: list[Term] = known) -> list[Obligation]:
                for term in known:
                    current().assume(term)
                return perform_step(machine, step, any_vcpu(machine, values, loaded, in_guest), values)

            for path, owed in paths(run):
                result.count(owed)
                for failed, model in discharge(path.conditions, owed):
                    concrete = {name: evaluate(model, value) for name, value in values.asked.items()}
                    result.refutations.append(
                        Refutation(failed.claim, failed.part, step.name, loaded, in_guest, concrete))
    return result
