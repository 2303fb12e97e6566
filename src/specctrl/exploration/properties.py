"""What the exploration looks at, and which rules each property carries."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Property:
    """What is looked at, in plain English, and the ids of the rules that it carries."""

    text: str
    rules: tuple[str, ...]


PROPERTIES: dict[str, Property] = {
    "mechanism_refines_contract": Property(
        "Every step ends as the contract says (success, fault, errno, level), and leaves report, pair and mode as "
        "the contract says.",
        ("access.emulated.merged-decides", "cap.vcpu.any-time", "cap.vcpu.tried-on-host",
         "contract.write.merged-decides", "nested.init.blocked", "nested.init.delivered", "nested.init.reflected",
         "nested.l0-intercept.emulated", "nested.lists.guest-writes", "nested.reflect",
         "processor.wrmsr.fault-on-merged", "virt.ctrl.any-time")),
    "guest_reads_what_it_wrote": Property(
        "RDMSR of IA32_SPEC_CTRL returns what was last written, at L1 and L2.",
        ("access.read.view", "contract.level.one-view", "contract.view.reads-back", "nested.exit.view",
         "nested.failed-entry.view", "nested.smi.view", "processor.rdmsr.shadow", "processor.wrmsr.shadow-unmodified")),
    "get_msrs_is_the_view": Property(
        "KVM_GET_MSRS of IA32_SPEC_CTRL returns the guest's view, and of the report the report.",
        ("access.read.view", "migration.view-not-effective", "nested.failed-entry.view")),
    "userspace_wins": Property(
        "While the guest runs, the processor holds userspace's value in every bit of userspace's mask.",
        ("cap.vcpu.any-time", "contract.effective.merge", "contract.force.overlay", "processor.wrmsr.masked-kept")),
    "zero_forced_bits_never_set": Property(
        "While the guest runs, no bit that userspace forces to 0 is set in the processor.",
        ("force.zeros-too",)),
    "report_is_in_force": Property(
        "While the guest runs, every bit that its report asks for, that the host can deliver and userspace's mask "
        "leaves alone, is set in the processor.",
        ("contract.effective.merge", "contract.force.overlay", "nested.report-from-list", "virt.report.in-force")),
    "nothing_else_is_forced": Property(
        "While the guest runs, every other bit of the processor's register is the guest's own.",
        ("contract.effective.merge", "contract.force.nothing-else", "processor.without-control.plain")),
    "forced_is_intercepted": Property(
        "While the guest runs with something forced on a host without the control, its writes of IA32_SPEC_CTRL are "
        "intercepted.",
        ("intercept.without-control",)),
    "host_value_after_exit": Property(
        "After every VM exit the processor holds the host's value.",
        ("exit.host-restored",)),
    "saved_is_hardware": Property(
        "At every VM exit, before the host's value is written back, KVM's saved value is the processor's.",
        ("exit.saved-is-hardware",)),
    "host_never_faults": Property(
        "KVM never writes a value to the MSR that the host refuses.",
        ("force.host-accepts",)),
    "reset_leaves_userspace": Property(
        "INIT and a platform reset leave view 0, and exactly userspace's pair in force.",
        ("init.report.withdrawn", "init.userspace-stays", "init.view-zero", "reset.userspace")),
    "migration_is_identity": Property(
        "A migration succeeds exactly if the contract lets the state move, and leaves view, report and level as they "
        "were.",
        ("contract.move.identity", "migration.restorable")),
}
"""Each property; where a name is also a claim's, it means the same.

A property names a rule only if its sentence, or the part that guest, userspace or host can see, follows on the bits,
hosts and events of the exploration; where several name it, they carry it together.  What no exploration visits (a
filter, a host without the MSR, a guest whose CPUID hides it) is not named, though a claim may prove it.
"""
