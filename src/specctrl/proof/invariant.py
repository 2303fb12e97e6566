"""The inductive invariant as terms, and what must hold after every step of the induction."""

from dataclasses import dataclass

from specctrl.model.contract import Contract, requested_bits
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.parts import Host
from specctrl.model.processor import Vmcs
from specctrl.model.registers import (
    BHB_CLEAR_SEQ_S_USED,
    BHI_DIS_S,
    IA32_SPEC_CTRL,
    RETPOLINE_S_USED,
    RRSBA_DIS_S,
    VALID_ENUMERATION,
    VALID_MITIGATION_CTRL,
    VALID_MITIGATION_ENUM,
)
from specctrl.model.words import merge, overlay
from specctrl.proof.any_vcpu import exists, pair_is_valid, same, subset, view_now
from specctrl.proof.symbolic import flag_term, settled, word_term
from specctrl.proof.terms import Term, all_of, any_of, implies, not_, when


@dataclass(frozen=True, slots=True)
class Obligation:
    """What must hold at the end of a path: a part of a claim."""

    claim: str
    part: str
    term: Term


def invariant(vcpu: Vcpu) -> dict[str, Term]:
    """What holds of a vCPU after every operation; each part in plain English."""
    host, control, there = vcpu.host, flag_term(vcpu.cpu.has_control), flag_term(exists(vcpu.host))
    view = view_now(vcpu)
    mask, value = overlay(vcpu.user_mask, vcpu.user_value, requested_bits(host, vcpu.mitigation_ctrl))
    effective = merge(view, mask, value)
    bitmaps = (vcpu.vmcs01.intercept_read, vcpu.vmcs01.intercept_write,
               vcpu.vmcs02.intercept_read, vcpu.vmcs02.intercept_write)
    direct = any_of(flag_term(vcpu.passthrough), *(not_(flag_term(intercepted)) for intercepted in bitmaps))
    safe = all_of(flag_term(vcpu.cpuid.spec_ctrl), there, any_of(control, same(mask, 0)))
    accepted = when(there, subset(effective, host.writable), all_of(same(view, 0), same(vcpu.saved, 0)))
    parts = {
        "the processor is the host's, and the control is 1 in both VMCSs exactly where it exists":
            belongs_to_host(vcpu),
        "KVM's VMCSs use a bitmap, none of their MSR areas has the MSR, and neither control that loads it is 1": all_of(
            [own_controls(vmcs) for vmcs in (vcpu.vmcs01, vcpu.vmcs02)]),
        "vmcs01 intercepts exactly the directions that KVM does not pass through or the filter denies": all_of(
            [flag_term(intercepted) == not_(all_of(
                flag_term(vcpu.passthrough), flag_term(vcpu.vm.msr_filter.allows(IA32_SPEC_CTRL, write=write))))
             for intercepted, write in ((vcpu.vmcs01.intercept_read, False), (vcpu.vmcs01.intercept_write, True))]),
        "where KVM does not pass the MSR through, vmcs02 intercepts it too": implies(
            not_(flag_term(vcpu.passthrough)),
            all_of(flag_term(vcpu.vmcs02.intercept_read), flag_term(vcpu.vmcs02.intercept_write))),
        "the pair in force is userspace's with the report on top": all_of(
            same(vcpu.force_mask, mask), same(vcpu.force_value, value)),
        "userspace's value lies in its mask and in what the processor accepts; without the control there is no pair":
            pair_is_valid(vcpu, vcpu.user_mask, vcpu.user_value),
        "the virtual MSRs have no reserved bit": all_of(
            subset(vcpu.mitigation_ctrl, VALID_MITIGATION_CTRL), subset(vcpu.mitigation_enum, VALID_MITIGATION_ENUM),
            subset(vcpu.virtual_enumeration, VALID_ENUMERATION)),
        "the processor accepts the effective value; without the MSR view and saved value are 0": accepted,
        "the guest accesses the MSR directly only if its CPUID shows it, and the control is there or nothing is forced":
            implies(direct, safe),
        "without the control KVM passes the MSR through to a guest that is shown it and whose view is not 0, unless "
        "something is forced": implies(
            all_of(there, not_(control), flag_term(vcpu.cpuid.spec_ctrl), same(mask, 0), not_(same(view, 0))),
            flag_term(vcpu.passthrough)),
        "with the control, the loaded VMCS has the mask in force": implies(
            control, same(vcpu.vmcs.spec_ctrl_mask, mask)),
        "with the control, the loaded SHADOW is the guest's view": implies(
            control, same(vcpu.vmcs.spec_ctrl_shadow, view)),
    }
    if vcpu.level == 1:
        parts["an entry of L1 that was emulated but not performed waits in L2 only"] = not_(
            flag_term(vcpu.nested_run_pending))
    if vcpu.in_guest:
        parts["while the guest runs, the processor holds the effective value"] = same(
            vcpu.cpu.spec_ctrl, either(there, effective, 0))
        parts["while the guest runs with writes intercepted, the saved value is the processor's"] = implies(
            flag_term(vcpu.vmcs.intercept_write), same(vcpu.saved, vcpu.cpu.spec_ctrl))
        parts["while the guest runs, no merge of L2's bitmap waits"] = not_(flag_term(vcpu.bitmap_merge_pending))
    else:
        parts["a processor without the MSR has 0 in its place"] = any_of(there, same(vcpu.cpu.spec_ctrl, 0))
        parts["while KVM runs, the saved value is the effective one"] = implies(there, same(vcpu.saved, effective))
    return parts


def belongs_to_host(vcpu: Vcpu) -> Term:
    """The term that the processor is one of the host's, and both VMCSs have the control where it has it."""
    host, cpu = vcpu.host, vcpu.cpu
    control = flag_term(host.spec_ctrl_shadow)
    return all_of(
        same(cpu.writable, host.writable), flag_term(cpu.has_spec_ctrl) == flag_term(exists(host)),
        *(flag_term(has) == control for has in (
            cpu.has_control, vcpu.vmcs01.virtualize_spec_ctrl, vcpu.vmcs02.virtualize_spec_ctrl)))


def own_controls(vmcs: Vmcs) -> Term:
    """The term that a VMCS of KVM's has a bitmap, no MSR area, and neither control "load IA32_SPEC_CTRL"."""
    areas = (vmcs.entry_load, vmcs.exit_store, vmcs.exit_load, vmcs.load_on_entry, vmcs.load_on_exit)
    return all_of(flag_term(vmcs.use_msr_bitmap), *(not_(flag_term(area)) for area in areas))


def either(condition: Term, then: object, otherwise: object) -> object:
    """A word that depends on a condition."""
    return settled(when(condition, word_term(then), word_term(otherwise)))


def always(vcpu: Vcpu, after: Contract) -> list[Obligation]:
    """What must hold after every step, of the state alone; ``after`` is what observers see of it."""
    owed = [Obligation("invariant_holds_again", part, term) for part, term in invariant(vcpu).items()]
    register, there = word_term(vcpu.cpu.spec_ctrl), flag_term(exists(vcpu.host))
    if not vcpu.in_guest:
        return owed
    mask, value = (word_term(word) for word in after.force())
    user_mask, user_value = word_term(after.user_mask), word_term(after.user_value)
    differs = register ^ word_term(after.guest_view)
    for claim, term in (
        ("masked_bits_never_change", register & mask == value & mask),
        ("zero_forced_bits_never_set", register & mask & ~value == 0),
        ("report_is_in_force", report_in_force(after, register)),
        ("nothing_else_is_forced", differs & ~named_by_someone(after) == 0),
        ("userspace_wins", register & user_mask == user_value & user_mask),
    ):
        owed.append(Obligation(claim, "register", implies(there, term)))
    return owed


def named_by_someone(contract: Contract) -> Term:
    """Every bit that userspace's mask or the report names, written without the rule code's formulas."""
    report = word_term(contract.report)
    bits = word_term(contract.user_mask)
    for asked, bit, _ in askings(contract.host):
        bits = bits | when(report & asked != 0, word_term(bit), word_term(0))
    return bits


def askings(host: Host) -> tuple[tuple[int, int, Term], ...]:
    """The report's bits, the bit that each asks for, and whether the host can deliver it; no formula of the rules."""
    features = host.features
    bhi = all_of(flag_term(features.bhi_ctrl), not_(flag_term(features.bhi_no)))
    rrsba = all_of(flag_term(features.rrsba_ctrl), flag_term(features.rrsba))
    return (BHB_CLEAR_SEQ_S_USED, BHI_DIS_S, bhi), (RETPOLINE_S_USED, RRSBA_DIS_S, rrsba)


def report_in_force(contract: Contract, register: Term) -> Term:
    """A deliverable report that userspace does not mask is in the register, written without the formulas."""
    report, unmasked = word_term(contract.report), ~word_term(contract.user_mask)
    return all_of([
        implies(all_of(deliverable, report & asked != 0, unmasked & bit != 0), register & bit != 0)
        for asked, bit, deliverable in askings(contract.host)
    ])
