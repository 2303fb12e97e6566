"""One step of an induction: what holds of every host, policy, 64-bit value and history of any length.

The step is run, by the symbolic executor, from a vCPU that stands for every vCPU of the invariant; on every path
the invariant must hold again, and so must the claims.  A claim that fails comes with a concrete vCPU in which it does.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from specctrl.model import contract, posted
from specctrl.model.contract import MODE, Contract
from specctrl.model.kvm import entry, nested, vcpu, vm
from specctrl.model.kvm import variant as kvm_variant
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import HostFault, VmEntryFailed, VmxAbort, VmxInstructionError
from specctrl.model.registers import (
    IA32_SPEC_CTRL,
    MSR_VIRTUAL_MITIGATION_CTRL,
    VALID_MITIGATION_ENUM,
)
from specctrl.proof import invariant as invariants
from specctrl.proof.any_vcpu import (
    Numbers,
    Solved,
    Symbols,
    abstract,
    announced,
    any_vcpu,
    exists,
    host_facts,
    same,
)
from specctrl.proof.equations import Contradiction, solve
from specctrl.proof.findings import Findings, Refutation, gather
from specctrl.proof.instrumented import Begun, instrumented
from specctrl.proof.invariant import Obligation, always, invariant
from specctrl.proof.side_by_side import Seen
from specctrl.proof.steps import HUNTS, Resets, Step, find_step
from specctrl.proof.summaries import identity, summarized
from specctrl.proof.symbolic import Flag, current, flag_term, word_term
from specctrl.proof.terms import FALSE, TRUE, Term, all_of, any_of, implies, not_, truth

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


def agree(left: object, right: object) -> Term:
    """The term that mechanism and contract showed the same."""
    if isinstance(left, str | Seen | None) or isinstance(right, str | Seen | None):
        return truth(left is right)
    return same(left, right)


def perform_step(step: Step, vcpu: Vcpu, values: Symbols) -> list[Obligation]:
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
    for saved, held, given in getattr(vcpu, "exits", ()):
        owed += [Obligation("saved_is_hardware", "exit", same(saved, held)),
                 Obligation("host_value_after_exit", "register", same(given, vcpu.host.spec_ctrl))]
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
    elif got in step.refusals:
        yield "view_survives", "refused: view", view_stays
    if step.shows_view and not isinstance(got, Seen):
        yield step.shows_view, "value", same(got, before.guest_view)
    if step.is_gated:
        yield "virtual_msrs_are_gated", "outcome", agree(got, expected)
        newly = word_term(after.report) & ~word_term(before.report) & ~word_term(before.offered)
        yield "virtual_msrs_are_gated", "report", newly == 0
    if step.resets is not None and got is Seen.DONE:
        withdraws = truth(step.resets is Resets.VIEW_AND_REPORT)
        gone = all_of(same(after.report, 0), same(vcpu.force_mask, before.user_mask),
                      same(vcpu.force_value, before.user_value))
        yield "reset_leaves_userspace", "view", same(after.guest_view, 0)
        yield "reset_leaves_userspace", "pair", implies(any_of(withdraws, flag_term(vcpu.init_withdraws_report)), gone)


# ---- running a proof


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


@dataclass(frozen=True, slots=True)
class Family:
    """One case of what a proof begins with: vCPUs in one place, what their values are, and what those satisfy."""

    machine: Variant
    loaded: Loaded
    in_guest: bool
    values: Solved
    known: list[Term]

    def vcpu(self) -> Vcpu:
        """A vCPU that stands for all of them, anew on each path."""
        assume_all(self.known)
        return any_vcpu(self.machine, self.values, self.loaded, self.in_guest)


def families(
    machine: Variant, loaded: Loaded, in_guest: bool, more: Callable[[Vcpu], Iterable[Term]] = lambda _: ()
) -> Iterator[Family]:
    """All vCPUs that have the invariant, and more if it is given, case by case."""
    vcpu = any_vcpu(machine, Symbols(), loaded, in_guest)
    known = [*more(vcpu), *host_facts(vcpu.host).values(), *invariant(vcpu).values()]
    if machine.name == posted.RFC_V3.name:  # it has no form of the capability for a vCPU
        known += [same(vcpu.user_mask, vcpu.vm.user_mask), same(vcpu.user_value, vcpu.vm.user_value)]
        known.append(not_(flag_term(vcpu.cpu.entry_loads_shadow)))  # nor need it be refuted under both assumptions
        if not in_guest:  # its entry trusts the host's variable: nor by a host whose register drifted
            known.append(same(vcpu.cpu.spec_ctrl, vcpu.host.spec_ctrl))
    for case in cases(vcpu):
        try:
            solution, rest = solve([*case, *known])
        except Contradiction:
            continue
        yield Family(machine, loaded, in_guest, Solved(solution), rest)


def of_each_family(
    variant: Variant, step: str, loaded: Loaded, in_guest: bool, owed: Callable[[Family], list[Obligation]],
    more: Callable[[Vcpu], Iterable[Term]] = lambda _: (),
) -> Findings:
    """What comes of ``owed``, which performs a step on a vCPU, for all vCPUs in one place."""
    found = Findings()
    with summarized(PURE):
        for family in families(instrumented(variant), loaded, in_guest, more):
            gather(partial(owed, family), family.values, found, step, loaded, in_guest)
    return found


def assume_all(known: list[Term]) -> None:
    """Restrict the path to where all of this holds."""
    for term in known:
        current().assume(term)


def prove_step(variant: Variant, step: Step, loaded: Loaded, in_guest: bool) -> Findings:
    """One step from every state of the invariant with this VMCS loaded and the guest running or not."""
    return of_each_family(variant, step.name, loaded, in_guest,
                          lambda family: perform_step(step, family.vcpu(), family.values))


def hunt(variant: Variant, claim: str) -> Refutation | None:
    """The steps of :data:`~specctrl.proof.steps.HUNTS`, if they break the claim from a state of the invariant.

    Of a guest that accesses the MSR directly, was offered both bits of the report and has reported nothing.
    """
    step = HUNTS[claim]

    def direct(vcpu: Vcpu) -> list[Term]:
        filtered = [flag_term(vcpu.vm.msr_filter.allows(msr, write))
                    for msr in (IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL) for write in (False, True)]
        return [flag_term(vcpu.cpu.has_control), flag_term(vcpu.passthrough), *filtered,
                not_(flag_term(vcpu.vmcs01.intercept_write)), not_(flag_term(vcpu.vmcs01.intercept_read)),
                not_(flag_term(vcpu.cpu.entry_loads_shadow)), same(vcpu.user_mask, 0),
                same(vcpu.mitigation_ctrl, 0), flag_term(announced(vcpu)),
                same(vcpu.mitigation_enum, VALID_MITIGATION_ENUM)]

    def owed(family: Family) -> list[Obligation]:
        return [item for item in perform_step(step, family.vcpu(), family.values) if item.claim == claim]

    found = of_each_family(variant, step.name, Loaded.VMCS01, True, owed, direct)
    return next(iter(found.refutations), None)


def own_state(vcpu: Vcpu) -> Any:
    """Every field of a vCPU but its VM, which a VM's ioctl has changed by the time it comes to the vCPU."""
    return identity(tuple(getattr(vcpu, name) for name in Vcpu.__dataclass_fields__ if name != "vm"))


def prove_beginning(variant: Variant, step: Step, loaded: Loaded, in_guest: bool) -> Findings:
    """That a step begins with the operation that it names, and with nothing before it."""
    def begins(vcpu: Any, values: Solved) -> bool:
        vcpu.stops_at = step.begins
        try:
            step.act(vcpu, abstract(vcpu), values)
        except Begun:
            return True
        return False

    return prove_untouched(variant, step.name, loaded, in_guest, "begins so", begins)


def prove_once(variant: Variant, loaded: Loaded, in_guest: bool) -> Findings:
    """That KVM_RUN changes nothing while the guest runs, nor an exit while KVM runs.

    So what begins with it does the same from the place where it has been performed already.
    """
    def again(vcpu: Vcpu, _: Solved) -> bool:
        if in_guest:
            vcpu.run()
        else:
            vcpu.exit_guest()
        return True

    name = "KVM_RUN again" if in_guest else "an exit again"
    return prove_untouched(variant, name, loaded, in_guest, "changes nothing", again)


def prove_untouched(
    variant: Variant, step: str, loaded: Loaded, in_guest: bool, part: str, does: Callable[[Vcpu, Solved], bool]
) -> Findings:
    """That this, done at any vCPU of the invariant in one place, comes true and leaves every field as it was."""
    def owed(family: Family) -> list[Obligation]:
        vcpu = family.vcpu()
        before = own_state(vcpu)
        held = does(vcpu, family.values) and own_state(vcpu) == before
        return [Obligation("invariant_holds_again", part, truth(held))]

    return of_each_family(variant, step, loaded, in_guest, owed)


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
    machine, values = instrumented(variant), Numbers(refutation.values)

    assert refutation.loaded is not None, "only a step of a vCPU can be replayed"
    loaded = refutation.loaded

    def make() -> Vcpu:
        return any_vcpu(machine, values, loaded, refutation.in_guest)

    before, after = make(), make()
    start = (*host_facts(before.host).values(), *invariant(before).values())
    owed = perform_step(find_step(refutation.step), after, values)
    failed = frozenset((item.claim, item.part) for item in owed if item.term is FALSE)
    return Replay(before, after, failed, all(term is TRUE for term in start))
