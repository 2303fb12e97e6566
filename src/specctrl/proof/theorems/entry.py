"""Theorems about what is forced, VM entry and VM exit, and which accesses are intercepted."""

import errno
from dataclasses import replace

from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import Errno, HostFault
from specctrl.model.parts import Features, Host
from specctrl.model.registers import IA32_SPEC_CTRL, KVM_CAP_FORCE_SPEC_CTRL
from specctrl.proof.any_vcpu import AnyFilter, Symbols, exists, same
from specctrl.proof.invariant import askings
from specctrl.proof.symbolic import current, flag_term, word_term
from specctrl.proof.terms import Term, all_of, any_of, implies, not_, when
from specctrl.proof.theorems.capability import pair_is_accepted
from specctrl.proof.theorems.statement import (
    L1_GUEST,
    L1_KVM,
    L2_GUEST,
    L2_KVM,
    Of,
    Parts,
    any_bit,
    attempt,
    ends,
    equal,
    has,
    iff,
    merged_outside,
    outside,
    taken_from,
    theorem,
    truth,
    twin,
    unchanged,
)

OWN = ("cpu", "vmcs01", "vmcs02", "vm")
"""Records of a vCPU that are compared by themselves."""


def requested(host: Host, report: object) -> Term:
    """Every bit that a report asks for and the host can deliver, as one word, without the formulas of the rules."""
    bits = word_term(0)
    for asked, bit, deliverable in askings(host):
        bits = bits | when(all_of(has(report, asked), deliverable), word_term(bit), word_term(0))
    return bits


def forced_by(user_mask: object, user_value: object, asked: Term, bit: object) -> tuple[Term, Term]:
    """The terms that a bit is in the mask, and in the value, that userspace's pair and the bits asked for make."""
    users, wanted = has(user_mask, bit), asked & word_term(bit) != 0
    return any_of(users, wanted), any_of(has(user_value, bit), all_of(wanted, not_(users)))


def direct_on(vcpu: Vcpu, write: bool) -> Term:
    """The term that the loaded VMCS lets the guest access the MSR in this direction without an exit."""
    return not_(flag_term(vcpu.vmcs.intercept_write if write else vcpu.vmcs.intercept_read))


def l1_direct(vcpu: Vcpu, write: bool) -> Term:
    """The same for vmcs01, whichever is loaded."""
    return not_(flag_term(vcpu.vmcs01.intercept_write if write else vcpu.vmcs01.intercept_read))


def l2_direct(vcpu: Vcpu, write: bool) -> Term:
    """The same for vmcs02."""
    return not_(flag_term(vcpu.vmcs02.intercept_write if write else vcpu.vmcs02.intercept_read))


def allows(vcpu: Vcpu, write: bool) -> Term:
    """The term that the filter allows the guest IA32_SPEC_CTRL in this direction."""
    return flag_term(vcpu.vm.msr_filter.allows(IA32_SPEC_CTRL, write=write))


@theorem(L1_KVM, L2_KVM, of=Of.ANY, rules=("entry.loads-saved", "entry.by-register"))
def entry_loads_the_saved_value(vcpu: Vcpu, values: Symbols) -> Parts:
    """VM entry leaves the saved value in the register wherever the MSR exists, whatever the register held; elsewhere it
    leaves it alone.  It writes unless the saved value is the host's and the register holds it, and the write faults the
    host exactly if the processor refuses the value."""
    before, host = twin(vcpu), vcpu.host
    vcpu.cpu.entry_loads_shadow = False
    current().assume(flag_term(vcpu.cpu.has_spec_ctrl) == flag_term(exists(host)))
    there = flag_term(exists(host))
    loads = all_of(there, any_of(
        not_(same(before.saved, host.spec_ctrl)), not_(same(before.saved, before.cpu.spec_ctrl))))
    seen = attempt(vcpu.enter_guest)
    yield "the host's fault", iff(ends(seen, HostFault), all_of(loads, outside(before.saved, vcpu.cpu.writable)))
    if seen is None:
        yield "the register", when(
            there, same(vcpu.cpu.spec_ctrl, before.saved), same(vcpu.cpu.spec_ctrl, before.cpu.spec_ctrl))
        yield "the guest runs", truth(vcpu.in_guest)
        yield "nothing else", unchanged(vcpu, before, "cpu", "vm", "nested_run_pending", "has_run", "vmcs01", "vmcs02")
        yield "the VMCSs", all_of(equal(vcpu.vmcs01, before.vmcs01), equal(vcpu.vmcs02, before.vmcs02))


@theorem(L1_GUEST, L2_GUEST, of=Of.ANY, rules=(
    "exit.saved-is-hardware", "exit.saved-from-view", "exit.view-taken", "exit.host-restored",
))
def exit_takes_and_gives_back(vcpu: Vcpu, values: Symbols) -> Parts:
    """A VM exit before which the guest could write the MSR directly takes as its view SHADOW with the control and the
    register without, and as the saved value the merge of that view with the pair in force; after another both stand.
    It writes the host's value back wherever the register does not hold it, also when an NMI left another value there
    after the exit, and always where the host uses legacy IBRS: the host has its value then."""
    before, host = twin(vcpu), vcpu.host
    current().assume(flag_term(vcpu.cpu.has_spec_ctrl) == flag_term(exists(host)))
    current().assume(all_of(not_(outside(host.spec_ctrl, vcpu.cpu.writable)), same(host.writable, vcpu.cpu.writable)))
    there, control = flag_term(exists(host)), flag_term(vcpu.cpu.has_control)
    could = all_of(there, direct_on(vcpu, write=True))
    register, shadow, bit = values.word("left_by_an_nmi"), before.vmcs.spec_ctrl_shadow, any_bit(values)
    vcpu.cpu.vm_exit(vcpu.vmcs)
    vcpu.cpu.spec_ctrl = register
    vcpu.after_exit()
    yield "the saved value", when(
        could, taken_from(bit, vcpu.saved, vcpu.guest_view, before.force_mask, before.force_value),
        same(vcpu.saved, before.saved))
    yield "the view", when(could, when(control, same(vcpu.guest_view, shadow), same(vcpu.guest_view, register)),
                            same(vcpu.guest_view, before.guest_view))
    yield "the register", when(
        there, same(vcpu.cpu.spec_ctrl, host.spec_ctrl), same(vcpu.cpu.spec_ctrl, register))
    yield "the host runs", truth(not vcpu.in_guest)
    yield "nothing else", unchanged(vcpu, before, "cpu", "vm", "saved", "guest_view")


@theorem(L1_KVM, L2_KVM, rules=(
    "force.mask-follows", "force.zeros-too", "cap.vcpu.report-recomputed", "cap.guest-cpuid.not-looked-at",
    "nested.mask-both",
))
def what_is_forced_goes_bit_by_bit(vcpu: Vcpu, values: Symbols) -> Parts:
    """When userspace's pair or the report has changed, in whatever way: each bit of mask and value is what both make of
    it, the saved value has the force value where the mask has the bit and the view elsewhere, the loaded VMCS has the
    mask in force, and so has the other once it is loaded, with the view in SHADOW.  The guest's CPUID does not
    matter."""
    bit, other = any_bit(values), twin(vcpu)
    vcpu.user_mask, vcpu.user_value = values.word("new_mask"), values.word("new_value")
    vcpu.mitigation_ctrl = values.word("new_report")
    current().assume(not_(outside(vcpu.user_value, vcpu.user_mask)))
    vcpu.update_force()
    mask, value = forced_by(vcpu.user_mask, vcpu.user_value, requested(vcpu.host, vcpu.mitigation_ctrl), bit)
    yield "mask", iff(has(vcpu.force_mask, bit), mask)
    yield "value", iff(has(vcpu.force_value, bit), value)
    yield "saved", iff(has(vcpu.saved, bit), when(mask, value, has(vcpu.guest_view, bit)))
    other.user_mask, other.user_value, other.mitigation_ctrl = vcpu.user_mask, vcpu.user_value, vcpu.mitigation_ctrl
    other.cpuid = Features(spec_ctrl=values.flag("other.cpuid.spec_ctrl"))
    other.update_force()
    for name in ("force_mask", "force_value", "saved", "guest_view"):
        yield f"for another CPUID: {name}", same(getattr(vcpu, name), getattr(other, name))
    control = flag_term(vcpu.cpu.has_control)
    yield "loaded: MASK", implies(control, same(vcpu.vmcs.spec_ctrl_mask, vcpu.force_mask))
    vcpu.load_vmcs(Loaded.VMCS01 if vcpu.level == 2 else Loaded.VMCS02)
    yield "the other: MASK", implies(control, same(vcpu.vmcs.spec_ctrl_mask, vcpu.force_mask))
    yield "the other: SHADOW", implies(control, same(vcpu.vmcs.spec_ctrl_shadow, vcpu.guest_view))


@theorem(L1_KVM, L2_KVM, rules=(
    "cap.enable.flags-zero", "cap.vcpu.any-time", "cap.vcpu.tried-on-host", "force.host-accepts",
))
def vcpu_capability_takes_exactly_safe_pairs(vcpu: Vcpu, values: Symbols) -> Parts:
    """KVM_ENABLE_CAP on a vCPU fd, in L1 or L2 and at any time, succeeds exactly if flags are 0, the capability is
    KVM_CAP_FORCE_SPEC_CTRL, the host can force the pair, and the host accepts every bit of the guest's view merged with
    what is then in force.  The pair is then this vCPU's, and the next VM entry runs with it; a failure is EINVAL and
    changes nothing."""
    before, mask, value = twin(vcpu), values.word("new_mask"), values.word("new_value")
    asked = requested(vcpu.host, vcpu.mitigation_ctrl)
    new_mask = word_term(mask) | asked
    fits = all_of(flag_term(exists(vcpu.host)), all_of(
        word_term(value) & ~word_term(vcpu.host.writable) == 0,
        asked & ~word_term(mask) & ~word_term(vcpu.host.writable) == 0,
        word_term(vcpu.guest_view) & ~new_mask & ~word_term(vcpu.host.writable) == 0))
    capability, flags = values.word("capability"), values.word("flags")
    valid = all_of(same(flags, 0), same(capability, KVM_CAP_FORCE_SPEC_CTRL), pair_is_accepted(vcpu.host, mask, value))
    seen = attempt(lambda: vcpu.enable_cap(capability, flags, mask, value))
    yield "it succeeds", iff(truth(seen is None), all_of(valid, fits))
    yield "or EINVAL", truth(seen is None or ends(seen, Errno, errno.EINVAL))
    if seen is not None:
        yield "nothing changes", unchanged(vcpu, before, "vm")
        return
    yield "the pair", all_of(same(vcpu.user_mask, mask), same(vcpu.user_value, value))
    yield "the view and the report", unchanged(
        vcpu, before, *OWN, "user_mask", "user_value", "force_mask", "force_value", "saved", "passthrough")
    vcpu.run()
    register = word_term(vcpu.cpu.spec_ctrl)
    yield "in force", register & word_term(mask) == word_term(value)
    yield "the MASK field", implies(flag_term(vcpu.cpu.has_control), same(vcpu.vmcs.spec_ctrl_mask, vcpu.force_mask))


@theorem(L1_KVM, L2_KVM, rules=("intercept.hidden-msr", "intercept.without-control"))
def interception_follows_mask_and_cpuid(vcpu: Vcpu, values: Symbols) -> Parts:
    """After a change of what is forced: a guest whose CPUID hides the MSR, and any guest on a host without the control
    while the mask is not 0, accesses it in neither direction directly, at L1 and at L2; on such a host a mask of 0 and
    a view that is not lets L1 access it in each direction that the filter allows; and with the control nothing
    changes."""
    current().assume(flag_term(exists(vcpu.host)))
    before, control = twin(vcpu), flag_term(vcpu.cpu.has_control)
    vcpu.user_mask, vcpu.user_value = values.word("new_mask"), values.word("new_value")
    vcpu.mitigation_ctrl = values.word("new_report")
    vcpu.update_force()
    shown = flag_term(vcpu.cpuid.spec_ctrl)
    unforced = same(vcpu.force_mask, 0)
    for name, write in (("reads", False), ("writes", True)):
        yield f"{name}: hidden or forced", implies(
            any_of(not_(shown), all_of(not_(control), not_(unforced))),
            all_of(not_(l1_direct(vcpu, write)), not_(l2_direct(vcpu, write))))
        yield f"{name}: unforced", implies(
            all_of(shown, not_(control), unforced, not_(same(vcpu.guest_view, 0))),
            iff(l1_direct(vcpu, write), allows(vcpu, write)))
        yield f"{name}: with the control", implies(
            all_of(control, shown), iff(l1_direct(vcpu, write), l1_direct(before, write)))


@theorem(L1_KVM, L2_KVM, rules=("intercept.until-first-nonzero",))
def first_nonzero_write_ends_interception(vcpu: Vcpu, values: Symbols) -> Parts:
    """After a write of IA32_SPEC_CTRL that KVM performs, for the guest or for userspace: if it is accepted and not 0,
    and CPUID shows the MSR, and there is the control or nothing is forced, L1 accesses the MSR directly in exactly the
    directions that the filter allows; any other write leaves interception as it was."""
    before, value = twin(vcpu), values.word("written")
    hosts = bool(values.flag("userspace"))
    seen = attempt(lambda: vcpu.write_msr(IA32_SPEC_CTRL, value, host_initiated=hosts))
    ends_it = all_of(
        truth(seen is None), not_(same(value, 0)), flag_term(vcpu.cpuid.spec_ctrl),
        any_of(flag_term(vcpu.cpu.has_control), same(vcpu.force_mask, 0)))
    for name, write in (("reads", False), ("writes", True)):
        yield name, when(ends_it, iff(l1_direct(vcpu, write), allows(vcpu, write)),
                          iff(l1_direct(vcpu, write), l1_direct(before, write)))
        yield f"{name} of L2", iff(l2_direct(vcpu, write), l2_direct(before, write))


@theorem(L1_KVM, L2_KVM, L1_GUEST, L2_GUEST, rules=("filter.reintercepts",))
def denied_directions_are_intercepted(vcpu: Vcpu, values: Symbols) -> Parts:
    """When a vCPU takes note of a new filter it leaves the guest, and L1 then accesses the MSR directly in no direction
    that the filter denies, and in no other than those in which KVM passes it through; L2 goes on as it did, where KVM
    passes it through."""
    before = twin(vcpu)
    vcpu.vm.msr_filter = AnyFilter("new_filter", values)  # type: ignore[assignment]  # stands for every MsrFilter
    vcpu.msr_filter_changed()
    yield "KVM runs", truth(not vcpu.in_guest)
    passes = flag_term(before.passthrough)
    for name, write in (("reads", False), ("writes", True)):
        yield name, iff(l1_direct(vcpu, write), all_of(passes, allows(vcpu, write)))
        yield f"{name} of L2", implies(passes, iff(l2_direct(vcpu, write), l2_direct(before, write)))


@theorem(L1_KVM, L2_KVM, rules=(
    "init.view-zero", "init.userspace-stays", "init.report.withdrawn", "init.interception-stays",
))
def init_keeps_interception(vcpu: Vcpu, values: Symbols) -> Parts:
    """What INIT resets is the view, which becomes 0, and the report, under the assumption init-withdraws-report; the
    pair in force is then exactly what userspace and the remaining report make, the loaded SHADOW is 0, and no access is
    intercepted or passed through that was not."""
    before, bit = twin(vcpu), any_bit(values)
    vcpu.init_reset()
    gone = flag_term(vcpu.init_withdraws_report)
    report = when(gone, word_term(0), word_term(before.mitigation_ctrl))
    yield "the view", same(vcpu.guest_view, 0)
    yield "the report", word_term(vcpu.mitigation_ctrl) == report
    yield "userspace's pair", all_of(
        same(vcpu.user_mask, before.user_mask), same(vcpu.user_value, before.user_value))
    mask, value = forced_by(vcpu.user_mask, vcpu.user_value, requested(vcpu.host, vcpu.mitigation_ctrl), bit)
    yield "in force", all_of(iff(has(vcpu.force_mask, bit), mask), iff(has(vcpu.force_value, bit), value))
    yield "none pending", not_(flag_term(vcpu.init_pending))
    yield "SHADOW", implies(flag_term(vcpu.cpu.has_control), same(vcpu.vmcs.spec_ctrl_shadow, 0))
    for name, write in (("reads", False), ("writes", True)):
        for where, now in (("L1", l1_direct), ("L2", l2_direct)):
            yield f"{name} of {where}", iff(now(vcpu, write), now(before, write))


@theorem(L1_KVM, L2_KVM, L1_GUEST, L2_GUEST, rules=("reset.userspace", "nested.set-state.no-lists"))
def reset_leaves_zero(vcpu: Vcpu, values: Symbols) -> Parts:
    """After a platform reset, wherever the vCPU was: view and report are 0 for guest and userspace, exactly
    userspace's pair is in force, and the vCPU is at level 1, out of VMX operation and SMM, with no INIT pending and not
    shut down; no MSR list of L1 was performed."""
    before = twin(vcpu)
    vcpu.shut_down = bool(values.flag("shut_down"))
    vcpu.controls = replace(
        vcpu.controls, exit_msr_store=(IA32_SPEC_CTRL,), exit_msr_load=((IA32_SPEC_CTRL, values.word("listed")),))
    vcpu.platform_reset()
    yield "the view", all_of(same(vcpu.guest_view, 0), equal(tuple(vcpu.get_msrs((IA32_SPEC_CTRL,))), (0,)))
    yield "the report", same(vcpu.mitigation_ctrl, 0)
    yield "the pair", all_of(same(vcpu.force_mask, before.user_mask), same(vcpu.force_value, before.user_value),
                             same(vcpu.user_mask, before.user_mask), same(vcpu.user_value, before.user_value))
    yield "where it is", truth(vcpu.level == 1 and not vcpu.in_guest and vcpu.vmx_operation is False)
    yield "SMM and INIT", truth(vcpu.smm is False and vcpu.init_pending is False and vcpu.shut_down is False
                                and vcpu.smm_left_level2 is False and vcpu.smm_left_vmx is False)


@theorem(L1_KVM, L2_KVM, rules=(
    "access.emulated.merged-decides", "access.emulated.view-and-saved", "access.no-msr.refused", "force.zeros-too",
    "force.host-accepts", "migration.restorable",
))
def kvm_writes_view_and_merge(vcpu: Vcpu, values: Symbols) -> Parts:
    """A write of IA32_SPEC_CTRL that KVM performs, for the guest whose CPUID shows it or for userspace, is accepted
    exactly if the host has the MSR and accepts every bit of the value merged with what is in force.  It sets view,
    loaded SHADOW and, bit by bit, the saved value; one that is refused changes nothing."""
    before, value, bit = twin(vcpu), values.word("written"), any_bit(values)
    hosts = bool(values.flag("userspace"))
    fits = all_of(flag_term(exists(vcpu.host)), not_(merged_outside(
        value, before.force_mask, before.force_value, vcpu.host.writable)))
    seen = attempt(lambda: vcpu.write_msr(IA32_SPEC_CTRL, value, host_initiated=hosts))
    shown = any_of(truth(hosts), flag_term(vcpu.cpuid.spec_ctrl))
    yield "it is accepted", iff(truth(seen is None), all_of(shown, fits))
    if seen is None:
        yield "the view", same(vcpu.guest_view, value)
        yield "SHADOW", implies(flag_term(vcpu.cpu.has_control), same(vcpu.vmcs.spec_ctrl_shadow, value))
        yield "the saved value", taken_from(bit, vcpu.saved, value, before.force_mask, before.force_value)
        yield "nothing else", unchanged(
            vcpu, before, *OWN, "guest_view", "saved", "passthrough")
        yield "the processor", unchanged(vcpu.cpu, before.cpu)
    else:
        yield "nothing changes", unchanged(vcpu, before, "vm")
