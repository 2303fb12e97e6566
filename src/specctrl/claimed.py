"""Which claims carry which rules: what is proven for all values, and explored over few bits, says of the sentences.

A claim is named beside a rule only if the rule's sentence, or the part of it that is about words, follows from it.
The claims are in :mod:`specctrl.claims`; a property of :mod:`specctrl.explore` with a claim's name means the same.
"""

PROVES: dict[str, tuple[str, ...]] = {
    "invariant_holds_again": (
        "contract.effective.merge",
        "force.mask-follows",
        "force.zeros-too",
        "intercept.hidden-msr",
        "intercept.without-control",
        "nested.mask-both",
        "cap.vcpu.report-recomputed",
        "cap.guest-cpuid.not-looked-at",
        "exit.view-taken",
    ),
    "mechanism_refines_contract": (
        "contract.write.merged-decides",
        "contract.force.overlay",
        "contract.level.one-view",
        "access.emulated.merged-decides",
        "access.emulated.view-and-saved",
        "access.no-msr.refused",
        "cap.vcpu.any-time",
        "cap.vcpu.tried-on-host",
        "nested.lists.guest-writes",
        "nested.l0-intercept.emulated",
        "processor.wrmsr.fault-on-merged",
        "processor.wrmsr.shadow-unmodified",
        "processor.without-control.plain",
    ),
    "masked_bits_never_change": ("contract.effective.merge", "processor.wrmsr.masked-kept"),
    "zero_forced_bits_never_set": ("force.zeros-too",),
    "guest_reads_what_it_wrote": (
        "contract.view.reads-back",
        "access.read.view",
        "nested.lists.store-view",
        "processor.rdmsr.shadow",
    ),
    "view_survives": ("nested.entry.view", "nested.exit.view", "nested.failed-entry.view", "nested.smi.view"),
    "get_msrs_is_the_view": ("access.read.view", "migration.view-not-effective"),
    "host_value_after_exit": ("exit.host-restored",),
    "saved_is_hardware": ("exit.saved-is-hardware",),
    "host_never_faults": ("force.host-accepts",),
    "report_is_in_force": ("virt.report.in-force", "nested.report-from-list"),
    "nothing_else_is_forced": ("contract.force.nothing-else",),
    "userspace_wins": ("contract.force.overlay",),
    "virtual_msrs_are_gated": (
        "virt.enumeration.gate",
        "virt.ctrl.gate",
        "virt.read-only",
        "virt.ctrl.reserved",
        "virt.ctrl.offered",
    ),
    "reset_leaves_userspace": (
        "init.view-zero",
        "init.report.withdrawn",
        "init.userspace-stays",
    ),
    "migration_is_identity": ("contract.move.identity", "migration.restorable"),
    "userspace_keeps_the_report": ("virt.userspace.same-overlay", "contract.report.userspace-supported"),
}
"""For each claim that says something of single rules: their ids."""


def claims_of(rule: str) -> list[str]:
    """The claims that carry a rule.

    >>> claims_of("force.zeros-too")
    ['invariant_holds_again', 'zero_forced_bits_never_set']
    """
    return [claim for claim, rules in PROVES.items() if rule in rules]
