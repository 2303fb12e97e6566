"""VMMs as they are: what each carries of this on a move, and what it does with an MSR that KVM refuses."""

from dataclasses import dataclass
from enum import Enum

from specctrl.model.registers import IA32_ARCH_CAPABILITIES, IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL


class OnRefusal(Enum):
    """What a VMM does when KVM_SET_MSRS stops at an MSR; the value is the scenario format's name."""

    STOP = "stop"  # the move fails with an error, the source goes on
    ABORT = "abort"  # an assertion ends the destination's process; the source goes on, if it is there still
    SKIP = "skip"  # that MSR is left out with a warning, and the guest runs with what a new vCPU has


@dataclass(frozen=True, slots=True)
class Vmm:
    """One VMM in one version."""

    title: str
    source: str
    state_msrs: tuple[int, ...]  # what it restores as state, if the source's KVM lists it
    feature_msrs: bool  # whether it restores 0x10a and the read-only virtual MSRs
    on_refusal: OnRefusal
    compares_cpuid: bool  # whether it refuses a destination that shows another CPUID
    only_listed_there: bool = False  # it writes no MSR that the destination's KVM does not list
    nested_state: bool = True


VMMS: dict[str, Vmm] = {
    "this": Vmm(
        "as this specification asks", "the rules of migration",
        (IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL), feature_msrs=True, on_refusal=OnRefusal.STOP,
        compares_cpuid=True),
    "qemu": Vmm(
        "QEMU 10.2.2", "target/i386/kvm/kvm.c, kvm_buf_set_msrs and kvm_put_msrs; target/i386/machine.c",
        (IA32_SPEC_CTRL,), feature_msrs=False, on_refusal=OnRefusal.ABORT, compares_cpuid=False,
        only_listed_there=True),
    "firecracker": Vmm(
        "Firecracker at 81b38b9da", "src/vmm/src/arch/x86_64/vcpu.rs and msr.rs",
        (IA32_SPEC_CTRL,), feature_msrs=False, on_refusal=OnRefusal.STOP, compares_cpuid=False, nested_state=False),
    "cloud-hypervisor": Vmm(
        "Cloud Hypervisor at ae44c2971", "hypervisor/src/kvm/mod.rs, set_msrs; vmm/src/lib.rs, the CPUID check",
        (IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL), feature_msrs=True, on_refusal=OnRefusal.SKIP,
        compares_cpuid=True),
}
"""The VMMs, by the scenario format's names."""
