"""Every claim in plain English: of the induction, of guests that report, and theorems about single operations."""

from dataclasses import dataclass

from specctrl.proof.protection import PROTECTION
from specctrl.proof.theorems import THEOREMS


@dataclass(frozen=True, slots=True)
class Claim:
    """What is proven, in plain English; the rules are those whose sentence, or what of it is of words, follows."""

    text: str
    rules: tuple[str, ...] = ()


INDUCTION: dict[str, Claim] = {
    "invariant_holds_again": Claim(
        "Every step leads from the invariant to the invariant.",
        ("contract.effective.merge", "force.mask-follows", "force.zeros-too", "intercept.hidden-msr",
         "intercept.without-control", "filter.reintercepts", "nested.mask-both", "nested.no-control-for-l1",
         "cap.vcpu.report-recomputed", "cap.guest-cpuid.not-looked-at", "exit.view-taken")),
    "mechanism_refines_contract": Claim(
        "After every step the outcome, the guest's view, userspace's pair, the report and the mode (level, VMX "
        "operation, SMM, a pending INIT, what L1 asked to see) are what the contract says.",
        ("contract.write.merged-decides", "contract.force.overlay", "contract.level.one-view",
         "access.emulated.merged-decides", "access.emulated.view-and-saved", "access.no-msr.refused",
         "cap.vcpu.any-time", "cap.vcpu.tried-on-host", "nested.lists.guest-writes", "nested.l0-intercept.emulated",
         "processor.wrmsr.fault-on-merged", "processor.wrmsr.shadow-unmodified", "processor.without-control.plain")),
    "masked_bits_never_change": Claim(
        "Whatever the guest writes, at L1 or L2, every masked bit of the processor's IA32_SPEC_CTRL stays the force "
        "value.",
        ("contract.effective.merge", "processor.wrmsr.masked-kept")),
    "zero_forced_bits_never_set": Claim(
        "A bit forced to 0 is never set in the processor while the guest runs.",
        ("force.zeros-too",)),
    "guest_reads_what_it_wrote": Claim(
        "RDMSR of IA32_SPEC_CTRL, and L1's store list, return the guest's view, at L1 and L2.",
        ("contract.view.reads-back", "access.read.view", "nested.lists.store-view", "processor.rdmsr.shadow")),
    "view_survives": Claim(
        "Entries, exits, reports, forcing, filters, nested transitions, SMM, saved nested state and refused accesses "
        "leave the guest's view as it is: only a write of the guest, an entry of L1's load lists, KVM_SET_MSRS, INIT "
        "and reset change it.",
        ("nested.entry.view", "nested.exit.view", "nested.failed-entry.view", "nested.smi.view")),
    "get_msrs_is_the_view": Claim(
        "KVM_GET_MSRS of IA32_SPEC_CTRL returns the guest's view, on every host.",
        ("access.read.view", "migration.view-not-effective")),
    "host_value_after_exit": Claim(
        "After every VM exit the processor holds the host's value, whatever it held before the entry.",
        ("exit.host-restored",)),
    "saved_is_hardware": Claim(
        "At every VM exit, before the host's value is written back, KVM's saved value is the processor's.",
        ("exit.saved-is-hardware",)),
    "host_never_faults": Claim("No access of KVM to the MSR or to a VMCS field fails.", ("force.host-accepts",)),
    "report_is_in_force": Claim(
        "A report that the host can deliver and that userspace does not mask is in force while the guest runs, in L1 "
        "and in L2.",
        ("virt.report.in-force", "nested.report-from-list")),
    "nothing_else_is_forced": Claim(
        "While the guest runs, a bit differs from its view only if userspace's mask or the report names it.",
        ("contract.force.nothing-else",)),
    "userspace_wins": Claim(
        "In every bit of userspace's mask the processor holds userspace's value while the guest runs.",
        ("contract.force.overlay",)),
    "l2_bitmap_waits_for_a_merge": Claim(
        "Between two merges no step lets L2 access the MSR directly where it could not, and one takes direct access "
        "from L2 only where KVM passes the MSR through no more.",
        ("nested.bitmap.merged",)),
    "virtual_msrs_are_gated": Claim(
        "The guest reads a virtual MSR only if its CPUID and the enumeration announce it, writes none but the "
        "report, and sets no bit of the report that it is not offered.",
        ("virt.enumeration.gate", "virt.ctrl.gate", "virt.read-only", "virt.ctrl.reserved", "virt.ctrl.offered")),
    "reset_leaves_userspace": Claim(
        "INIT and a platform reset leave view 0 and exactly userspace's pair in force; after INIT the report is gone "
        "where the assumption init-withdraws-report holds.",
        ("init.view-zero", "init.report.withdrawn", "init.userspace-stays")),
    "migration_is_identity": Claim(
        "A migration that succeeds, in either order of restoring, leaves view, report, feature MSRs, level, the "
        "vCPU's pair and the VM's, the mode (VMX operation, L1's controls, SMM, a pending INIT), CPUID, filter and "
        "exit reasons, and the vCPU has not run there; one that fails is one that the contract refuses, or the VM's "
        "own pair cannot be forced at the destination; either way the source is as it was.",
        ("contract.move.identity", "migration.restorable", "migration.order", "migration.force-again",
         "migration.refused-keeps-source")),
    "first_state": Claim("A new vCPU satisfies the invariant, on any host with any pair that the VM accepted."),
    "nobody_keeps_a_report": Claim(
        "A guest that is shown no virtual MSR and has reported nothing sees what the contract without virtual MSRs "
        "allows, whatever it does."),
    "userspace_keeps_the_report": Claim(
        "Userspace that keeps the report behind an MSR filter, and forces with each change what the contract asks "
        "for, shows the guest what the contract with a report kept in userspace allows.",
        ("virt.userspace.same-overlay", "contract.report.userspace-supported")),
    "invariant_is_not_empty": Claim(
        "The invariant has states with a report, a force mask and a view, with and without the control, in L1 and "
        "L2, while the guest runs and while KVM runs."),
}
"""What holds after every step, of every history."""

CLAIMS: dict[str, Claim] = {
    **INDUCTION, **{name: Claim(text) for name, text in PROTECTION.items()},
    **{name: Claim(theorem.text, theorem.rules) for name, theorem in THEOREMS.items()},
}
"""Every claim."""
