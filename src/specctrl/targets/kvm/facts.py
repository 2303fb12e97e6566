"""What a probe found out about this kernel, as far as it decides which scenarios it can show."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum


class SpecCtrl(Enum):
    """What becomes of a guest's write of IA32_SPEC_CTRL, tried with the guest's own WRMSR and RDMSR."""

    STORED = "stored"
    IGNORED = "ignored"  # no #GP, and a read gives 0 again
    REFUSED = "refused"  # #GP


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What ``/dev/kvm`` shows of this kernel and its processor."""

    capabilities: Mapping[int, int]  # what KVM_CHECK_EXTENSION answers
    index_list: tuple[int, ...]
    feature_index_list: tuple[int, ...]
    feature_arch_capabilities: int | None  # IA32_ARCH_CAPABILITIES by KVM_GET_MSRS on /dev/kvm
    spec_ctrl: SpecCtrl
    spec_ctrl_bits: int  # the bits of IA32_SPEC_CTRL that a guest could set one by one and read back
    takes_zero: tuple[int, ...]  # of 0x48 and 0x10a those that KVM_SET_MSRS sets to 0 and KVM_GET_MSRS reads as 0
    cpuid_offered: Mapping[str, int]  # EDX of leaves 7.0 and 7.2 in KVM_GET_SUPPORTED_CPUID
    cpuid_kept: Mapping[str, int]  # which bits of them a vCPU has after KVM_SET_CPUID2 asked for all that matter
    series_ioctl: str  # how KVM_GET_SUPPORTED_FORCE_SPEC_CTRL on /dev/kvm ends: an errno's name, or "0"
    max_vcpu_id: int
    apic: bool  # whether VMs get local APICs in the kernel, so that INIT can be sent
    refusal: Callable[[int, bool], str]
    """How the kernel refuses a guest's read, or (True) write of 0, of an MSR: UNKNOWN, INVAL, or "" if it does not."""

    @property
    def nested(self) -> bool:
        """Whether guests are offered nested virtualization, as KVM_CAP_NESTED_STATE has it."""
        return self.capabilities[CAP_NESTED_STATE] > 0


CAP_NESTED_STATE = 157
