"""VMMs as they are: what each carries of this on a move, and what it does with an MSR that KVM refuses."""

from dataclasses import dataclass
from enum import Enum

from specctrl.model.kvm.system import FEATURE_MSRS
from specctrl.model.registers import IA32_ARCH_CAPABILITIES, IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL


class OnRefusal(Enum):
    """What a VMM does when KVM_SET_MSRS stops at an MSR; the value is the scenario format's name."""

    STOP = "stop"  # the move fails with an error, the source goes on
    ABORT = "abort"  # an assertion ends the destination's process; the source goes on, if it is there still
    SKIP = "skip"  # that MSR is left out with a warning, and the guest runs with what a new vCPU has


@dataclass(frozen=True, slots=True)
class Vmm:
    """One VMM in one version: what it carries, and what it refuses."""

    title: str
    source: str
    feature_msrs: tuple[int, ...]  # what it restores before the state, on every vCPU
    state_msrs: tuple[int, ...]  # what it restores as state, as far as the source's KVM lists it
    on_refusal: OnRefusal
    compares_cpuid: bool  # whether it refuses to run a guest where it would show another CPUID
    saves_nested: bool = True  # whether it carries what KVM_GET_NESTED_STATE gives
    drops_unlisted: bool = False  # whether it leaves out, without a word, what the destination's KVM does not list


STATE_MSRS = (IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL)
"""The MSRs that move as state, in the order of KVM's index list."""

AS_SPECIFIED = Vmm(
    "as this specification asks", "the rules of migration", FEATURE_MSRS, STATE_MSRS, OnRefusal.STOP,
    compares_cpuid=True)

VMMS: dict[str, Vmm] = {
    "as-specified": AS_SPECIFIED,
    "qemu": Vmm(
        "QEMU 10.2.2", "target/i386/kvm/kvm.c, kvm_buf_set_msrs and kvm_put_msrs; target/i386/machine.c, cpu/spec_ctrl",
        (IA32_ARCH_CAPABILITIES,), (IA32_SPEC_CTRL,), OnRefusal.ABORT, compares_cpuid=False, drops_unlisted=True),
    "firecracker": Vmm(
        "Firecracker at 81b38b9dad, with a CPU template that names 0x10a",
        "src/vmm/src/arch/x86_64/vcpu.rs, KVM_SET_MSRS; msr.rs beside it",
        (IA32_ARCH_CAPABILITIES,), (IA32_SPEC_CTRL,), OnRefusal.STOP, compares_cpuid=False, saves_nested=False),
    "cloud-hypervisor": Vmm(
        "Cloud Hypervisor at ae44c2971c",
        "hypervisor/src/kvm/mod.rs, get_msr_list (all that KVM has) and set_state; vmm/src/lib.rs, the check of CPUID",
        FEATURE_MSRS, STATE_MSRS, OnRefusal.SKIP, compares_cpuid=True),
}
"""The VMMs, by the scenario format's names."""
