"""Every claim in plain English: of the induction, of guests that report, and theorems about single operations."""

from specctrl.proof.protection import PROTECTION
from specctrl.proof.theorems import THEOREMS

INDUCTION: dict[str, str] = {
    "invariant_holds_again": "Every step leads from the invariant to the invariant.",
    "mechanism_refines_contract": "After every step the outcome, the guest's view, userspace's pair, the report and "
    "the mode (level, VMX operation, SMM, a pending INIT, what L1 asked to see) are what the contract says.",
    "masked_bits_never_change": "Whatever the guest writes, at L1 or L2, every masked bit of the processor's "
    "IA32_SPEC_CTRL stays the force value.",
    "zero_forced_bits_never_set": "A bit forced to 0 is never set in the processor while the guest runs.",
    "guest_reads_what_it_wrote": "RDMSR of IA32_SPEC_CTRL, and L1's store list, return the guest's view, at L1 and L2.",
    "view_survives": "Entries, exits, reports, forcing, filters, nested transitions, SMM, saved nested state and "
    "refused accesses leave the guest's view as it is: only a write of the guest, an entry of L1's load lists, "
    "KVM_SET_MSRS, INIT and reset change it.",
    "get_msrs_is_the_view": "KVM_GET_MSRS of IA32_SPEC_CTRL returns the guest's view, on every host.",
    "host_value_after_exit": "After every VM exit the processor holds the host's value, whatever it held before the "
    "entry.",
    "saved_is_hardware": "At every VM exit, before the host's value is written back, KVM's saved value is the "
    "processor's.",
    "host_never_faults": "No access of KVM to the MSR or to a VMCS field fails.",
    "report_is_in_force": "A report that the host can deliver and that userspace does not mask is in force while the "
    "guest runs, in L1 and in L2.",
    "nothing_else_is_forced": "While the guest runs, a bit differs from its view only if userspace's mask or the "
    "report names it.",
    "userspace_wins": "In every bit of userspace's mask the processor holds userspace's value while the guest runs.",
    "l2_bitmap_waits_for_a_merge": "Between two merges no step lets L2 access the MSR directly where it could not, and "
    "one takes direct access from L2 only where KVM passes the MSR through no more.",
    "virtual_msrs_are_gated": "The guest reads a virtual MSR only if its CPUID and the enumeration announce it, writes "
    "none but the report, and sets no bit of the report that it is not offered.",
    "reset_leaves_userspace": "INIT and a platform reset leave view 0 and exactly userspace's pair in force; after "
    "INIT the report is gone where the assumption init-withdraws-report holds.",
    "migration_is_identity": "A migration that succeeds, in either order of restoring, leaves view, report, feature "
    "MSRs, level, the vCPU's pair and the VM's, the mode (VMX operation, L1's controls, SMM, a pending INIT), CPUID, "
    "filter and exit reasons, and the vCPU has not run there; one that fails is one that the contract refuses, or the "
    "VM's own pair cannot be forced at the destination; either way the source is as it was.",
    "first_state": "A new vCPU satisfies the invariant, on any host with any pair that the VM accepted.",
    "nobody_keeps_a_report": "A guest that is shown no virtual MSR and has reported nothing sees what the contract "
    "without virtual MSRs allows, whatever it does.",
    "userspace_keeps_the_report": "Userspace that keeps the report behind an MSR filter, and forces with each change "
    "what the contract asks for, shows the guest what the contract with a report kept in userspace allows.",
    "invariant_is_not_empty": "The invariant has states with a report, a force mask and a view, with and without the "
    "control, in L1 and L2, while the guest runs and while KVM runs.",
}
"""What holds after every step, of every history."""

CLAIMS: dict[str, str] = INDUCTION | PROTECTION | {theorem.name: theorem.text for theorem in THEOREMS.values()}
"""Every claim, in plain English."""
