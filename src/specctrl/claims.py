"""The claims, in plain English and as terms: the inductive invariant, and what must hold after every step."""

from dataclasses import dataclass

import z3

from specctrl.contract import Contract, requested_bits
from specctrl.kvm.vcpu import Vcpu
from specctrl.registers import (
    BHB_CLEAR_SEQ_S_USED,
    BHI_DIS_S,
    RETPOLINE_S_USED,
    RRSBA_DIS_S,
    VALID_ENUMERATION,
    VALID_MITIGATION_CTRL,
    VALID_MITIGATION_ENUM,
)
from specctrl.states import exists, pair_is_valid, same, subset, view_now
from specctrl.symbolic import Term, flag_term, settled, word_term
from specctrl.words import merge, overlay

CLAIMS: dict[str, str] = {
    "invariant_holds_again": "Every step leads from the invariant to the invariant.",
    "mechanism_refines_contract": "After every step the outcome, the guest's view, userspace's pair, the report and "
    "the level are what the contract says.",
    "masked_bits_never_change": "Whatever the guest writes, at L1 or L2, every masked bit of the processor's "
    "IA32_SPEC_CTRL stays the force value.",
    "zero_forced_bits_never_set": "A bit forced to 0 is never set in the processor while the guest runs.",
    "guest_reads_what_it_wrote": "RDMSR of IA32_SPEC_CTRL, and L1's store list, return the guest's view, at L1 and L2.",
    "view_survives": "Entries, exits, reports, forcing, filters, nested transitions, SMM, saved nested state and "
    "refused accesses leave the guest's view as it is: only a write of the guest, an entry of L1's load lists, "
    "KVM_SET_MSRS, INIT and reset change it.",
    "get_msrs_is_the_view": "KVM_GET_MSRS of IA32_SPEC_CTRL returns the guest's view, on every host.",
    "host_value_after_exit": "While KVM runs, the processor holds the host's value.",
    "saved_is_hardware": "At every VM exit, before the host's value is written back, KVM's saved value is the "
    "processor's.",
    "host_never_faults": "No access of KVM to the MSR or to a VMCS field fails.",
    "report_is_in_force": "A report that the host can deliver and that userspace does not mask is in force while the "
    "guest runs, in L1 and in L2.",
    "nothing_else_is_forced": "While the guest runs, a bit differs from its view only if userspace's mask or the "
    "report names it.",
    "userspace_wins": "In every bit of userspace's mask the processor holds userspace's value while the guest runs.",
    "virtual_msrs_are_gated": "The guest reads a virtual MSR only if its CPUID and the enumeration announce it, writes "
    "none but the report, and sets no bit of the report that it is not offered.",
    "reset_leaves_userspace": "INIT and a platform reset leave view 0 and exactly userspace's pair in force; after "
    "INIT the report is gone where the assumption init-withdraws-report holds.",
    "migration_is_identity": "A migration that succeeds, in either order of restoring, leaves view, pair, report and "
    "level; one that fails is one that the contract refuses, or the VM's own pair cannot be forced at the destination.",
    "first_state": "A new vCPU satisfies the invariant, on any host with any pair that the VM accepted.",
    "nobody_keeps_a_report": "A guest that is shown no virtual MSR and has reported nothing sees what the contract "
    "without virtual MSRs allows, whatever it does.",
    "userspace_keeps_the_report": "Userspace that keeps the report behind an MSR filter, and forces with each change "
    "what the contract asks for, shows the guest what the contract with a report kept in userspace allows.",
    "invariant_is_not_empty": "The invariant has states with a report, a force mask and a view, with and without the "
    "control, in L1 and L2, while the guest runs and while KVM runs.",
}
"""Every claim, in plain English."""


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
    direct = z3.Or(flag_term(vcpu.passthrough), *(z3.Not(flag_term(intercepted)) for intercepted in bitmaps))
    safe = z3.And(flag_term(vcpu.cpuid.spec_ctrl), there, z3.Or(control, same(mask, 0)))
    accepted = z3.If(there, subset(effective, host.writable), z3.And(same(view, 0), same(vcpu.saved, 0)))
    parts = {
        "the pair in force is userspace's with the report on top": z3.And(
            same(vcpu.force_mask, mask), same(vcpu.force_value, value)),
        "userspace's value lies in its mask and in what the processor accepts; without the control there is no pair":
            pair_is_valid(vcpu, vcpu.user_mask, vcpu.user_value),
        "the virtual MSRs have no reserved bit": z3.And(
            subset(vcpu.mitigation_ctrl, VALID_MITIGATION_CTRL), subset(vcpu.mitigation_enum, VALID_MITIGATION_ENUM),
            subset(vcpu.virtual_enumeration, VALID_ENUMERATION)),
        "the processor accepts the effective value; without the MSR view and saved value are 0": accepted,
        "the guest accesses the MSR directly only if its CPUID shows it, and the control is there or nothing is forced":
            z3.Implies(direct, safe),
        "with the control, the loaded VMCS has the mask in force": z3.Implies(
            control, same(vcpu.vmcs.spec_ctrl_mask, mask)),
        "with the control, the loaded SHADOW is the guest's view": z3.Implies(
            control, same(vcpu.vmcs.spec_ctrl_shadow, view)),
    }
    if vcpu.level == 1:
        parts["an entry of L1 that was emulated but not performed waits in L2 only"] = z3.Not(
            flag_term(vcpu.nested_run_pending))
    if vcpu.in_guest:
        parts["while the guest runs, the processor holds the effective value"] = same(
            vcpu.cpu.spec_ctrl, either(there, effective, 0))
        parts["while the guest runs with writes intercepted, the saved value is the processor's"] = z3.Implies(
            flag_term(vcpu.vmcs.intercept_write), same(vcpu.saved, vcpu.cpu.spec_ctrl))
        parts["while the guest runs, no merge of L2's bitmap waits"] = z3.Not(flag_term(vcpu.bitmap_merge_pending))
    else:
        parts["while KVM runs, the processor holds the host's value"] = same(vcpu.cpu.spec_ctrl, host.spec_ctrl)
        parts["while KVM runs, the saved value is the effective one"] = z3.Implies(there, same(vcpu.saved, effective))
    return parts


def either(condition: Term, then: object, otherwise: object) -> object:
    """A word that depends on a condition."""
    return settled(z3.If(condition, word_term(then), word_term(otherwise)))


def always(vcpu: Vcpu, after: Contract) -> list[Obligation]:
    """What must hold after every step, of the state alone; ``after`` is what observers see of it."""
    owed = [Obligation("invariant_holds_again", part, term) for part, term in invariant(vcpu).items()]
    register, there = word_term(vcpu.cpu.spec_ctrl), flag_term(exists(vcpu.host))
    if not vcpu.in_guest:
        return [*owed, Obligation("host_value_after_exit", "register", same(register_of(vcpu), vcpu.host.spec_ctrl))]
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
        owed.append(Obligation(claim, "register", z3.Implies(there, term)))
    return owed


def register_of(vcpu: Vcpu) -> object:
    """The processor's IA32_SPEC_CTRL."""
    return vcpu.cpu.spec_ctrl


def named_by_someone(contract: Contract) -> Term:
    """Every bit that userspace's mask or the report names, written without the rule code's formulas."""
    report = word_term(contract.report)
    bits = word_term(contract.user_mask)
    for asked, bit in ((BHB_CLEAR_SEQ_S_USED, BHI_DIS_S), (RETPOLINE_S_USED, RRSBA_DIS_S)):
        bits = bits | z3.If(report & asked != 0, word_term(bit), word_term(0))
    return bits


def report_in_force(contract: Contract, register: Term) -> Term:
    """A deliverable report that userspace does not mask is in the register, written without the formulas."""
    features, report, unmasked = contract.host.features, word_term(contract.report), ~word_term(contract.user_mask)
    bhi = z3.And(flag_term(features.bhi_ctrl), z3.Not(flag_term(features.bhi_no)))
    rrsba = z3.And(flag_term(features.rrsba_ctrl), flag_term(features.rrsba))
    return z3.And([
        z3.Implies(z3.And(deliverable, report & asked != 0, unmasked & bit != 0), register & bit != 0)
        for deliverable, asked, bit in ((bhi, BHB_CLEAR_SEQ_S_USED, BHI_DIS_S), (rrsba, RETPOLINE_S_USED, RRSBA_DIS_S))
    ])
