"""Which explored properties carry which rules, on the bits, hosts and events of the exploration.

A property is named beside a rule only if the rule's sentence, or the part of it that guest, userspace or host can
see, follows from it there.  What no exploration visits (a filter, a host without the MSR, a guest whose CPUID hides
it) is not named, though a claim of the same name may prove it.
"""

SHOWS: dict[str, tuple[str, ...]] = {
    "mechanism_refines_contract": (
        "access.emulated.merged-decides",
        "cap.vcpu.any-time",
        "cap.vcpu.tried-on-host",
        "contract.write.merged-decides",
        "nested.init.blocked",
        "nested.init.delivered",
        "nested.init.reflected",
        "nested.l0-intercept.emulated",
        "nested.lists.guest-writes",
        "nested.reflect",
        "processor.wrmsr.fault-on-merged",
        "virt.ctrl.any-time",
    ),
    "guest_reads_what_it_wrote": (
        "access.read.view",
        "contract.level.one-view",
        "contract.view.reads-back",
        "nested.exit.view",
        "nested.failed-entry.view",
        "nested.smi.view",
        "processor.rdmsr.shadow",
        "processor.wrmsr.shadow-unmodified",
    ),
    "get_msrs_is_the_view": ("access.read.view", "migration.view-not-effective", "nested.failed-entry.view"),
    "userspace_wins": (
        "cap.vcpu.any-time",
        "contract.effective.merge",
        "contract.force.overlay",
        "processor.wrmsr.masked-kept",
    ),
    "zero_forced_bits_never_set": ("force.zeros-too",),
    "report_is_in_force": (
        "contract.effective.merge",
        "contract.force.overlay",
        "nested.report-from-list",
        "virt.report.in-force",
    ),
    "nothing_else_is_forced": (
        "contract.effective.merge",
        "contract.force.nothing-else",
        "processor.without-control.plain",
    ),
    "forced_is_intercepted": ("intercept.without-control",),
    "host_value_after_exit": ("exit.host-restored",),
    "saved_is_hardware": ("exit.saved-is-hardware",),
    "host_never_faults": ("force.host-accepts",),
    "reset_leaves_userspace": (
        "init.report.withdrawn",
        "init.userspace-stays",
        "init.view-zero",
        "reset.userspace",
    ),
    "migration_is_identity": ("contract.move.identity", "migration.restorable"),
}
"""For each property: the ids of the rules.  A rule beside several is carried by all of them together."""


def properties_of(rule: str) -> list[str]:
    """The properties that carry a rule.

    >>> properties_of("contract.force.overlay")
    ['userspace_wins', 'report_is_in_force']
    """
    return [name for name, rules in SHOWS.items() if rule in rules]
