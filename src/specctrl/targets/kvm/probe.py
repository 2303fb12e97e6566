"""Asks the running kernel what it can show: with ioctls, and with a guest that tries."""

import fcntl
import struct

from specctrl.model.outcomes import ExitReason
from specctrl.model.registers import (
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    KVM_CAP_FORCE_SPEC_CTRL,
    KVM_CAP_X86_MSR_FILTER,
    KVM_CAP_X86_USER_SPACE_MSR,
    KVM_GET_SUPPORTED_FORCE_SPEC_CTRL,
    REGISTERS,
)
from specctrl.targets.kvm import ioctls
from specctrl.targets.kvm.bounds import TimeLimit
from specctrl.targets.kvm.facts import CAP_NESTED_STATE, KernelFacts, SpecCtrl
from specctrl.targets.kvm.minivmm import Access, Kvm, KvmMissing, MsrExit, Vm

SECONDS = 5.0
NEEDED = {
    KVM_CAP_X86_USER_SPACE_MSR: "KVM_CAP_X86_USER_SPACE_MSR",
    KVM_CAP_X86_MSR_FILTER: "KVM_CAP_X86_MSR_FILTER",
}
LEAVES = {"7.0": REGISTERS["CPUID.(7,0):EDX"].defined, "7.2": REGISTERS["CPUID.(7,2):EDX"].defined}
"""The bits of CPUID leaf 7 that this specification speaks of: EDX of two subleaves."""


def probe(kvm: Kvm) -> KernelFacts:
    """Everything that decides what this host can show; KvmMissing without MSR filters and MSR exits."""
    for capability, name in NEEDED.items():
        if kvm.check_extension(capability) != 1:
            raise KvmMissing(f"this kernel's KVM lacks {name} ({capability})")
    feature = kvm.get_msrs((IA32_ARCH_CAPABILITIES,))
    apic = kvm.check_extension(ioctls.CAP_SPLIT_IRQCHIP) == 1
    spec_ctrl, bits = _try_spec_ctrl(kvm)
    asked = (KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_X86_MSR_FILTER, KVM_CAP_FORCE_SPEC_CTRL, CAP_NESTED_STATE)
    return KernelFacts(
        capabilities={capability: kvm.check_extension(capability) for capability in asked},
        index_list=ioctls.index_list(kvm.fd, ioctls.GET_MSR_INDEX_LIST),
        feature_index_list=ioctls.index_list(kvm.fd, ioctls.GET_MSR_FEATURE_INDEX_LIST),
        feature_arch_capabilities=feature[0] if feature else None,
        spec_ctrl=spec_ctrl,
        spec_ctrl_bits=bits,
        takes_zero=_takes_zero(kvm),
        cpuid_offered=_leaf_7(kvm.supported_cpuid()),
        cpuid_kept=_try_cpuid(kvm),
        series_ioctl=_series_ioctl(kvm),
        max_vcpu_id=kvm.check_extension(ioctls.CAP_MAX_VCPU_ID),
        apic=apic,
        refusal=Refusals(kvm),
    )


class Refusals:
    """How the kernel refuses accesses of the guest; each is tried once, in a VM of its own."""

    def __init__(self, kvm: Kvm) -> None:
        self._kvm = kvm
        self._known: dict[tuple[int, bool], str] = {}

    def __call__(self, msr: int, write: bool) -> str:
        """UNKNOWN or INVAL; "" if the access is not refused."""
        if (msr, write) not in self._known:
            self._known[msr, write] = self._try(msr, write)
        return self._known[msr, write]

    def _try(self, msr: int, write: bool) -> str:
        vm = Vm(self._kvm)
        try:
            vm.create_vcpu(0)
            vm.enable_cap(KVM_CAP_X86_USER_SPACE_MSR, [ExitReason.UNKNOWN.value | ExitReason.INVAL.value])
            with TimeLimit(SECONDS):
                seen = vm.vcpus[0].access(msr, write)
            return ExitReason(seen.reason).name if isinstance(seen, MsrExit) else ""
        finally:
            vm.close()


def _try_spec_ctrl(kvm: Kvm) -> tuple[SpecCtrl, int]:
    vm = Vm(kvm)
    try:
        vm.create_vcpu(0)
        with TimeLimit(SECONDS):
            faults, bits = 0, 0
            for bit in range(64):
                wrote = vm.vcpus[0].access(IA32_SPEC_CTRL, True, 1 << bit)
                read = vm.vcpus[0].access(IA32_SPEC_CTRL, False)
                assert isinstance(wrote, Access), "no reason is enabled, so nothing exits"
                assert isinstance(read, Access), "no reason is enabled, so nothing exits"
                faults += 1 if wrote.vector else 0
                if not wrote.vector and not read.vector and read.result == 1 << bit:
                    bits |= 1 << bit
        if bits:
            return SpecCtrl.STORED, bits
        return (SpecCtrl.REFUSED if faults == 64 else SpecCtrl.IGNORED), 0
    finally:
        vm.close()


def _takes_zero(kvm: Kvm) -> tuple[int, ...]:
    vm = Vm(kvm)
    try:
        vm.create_vcpu(0)
        vcpu = vm.vcpus[0]
        return tuple(
            msr for msr in (IA32_SPEC_CTRL, IA32_ARCH_CAPABILITIES)
            if vcpu.set_msrs(((msr, 0),)) == 1 and vcpu.get_msrs((msr,)) == [0])
    finally:
        vm.close()


def _leaf_7(cpuid: bytes) -> dict[str, int]:
    """EDX of leaves 7.0 and 7.2 in a struct kvm_cpuid2; 0 for one that is not there."""
    found = dict.fromkeys(LEAVES, 0)
    for at in range(8, len(cpuid), ioctls.CPUID_ENTRY.size):
        leaf, subleaf, _flags, _eax, _ebx, _ecx, edx = ioctls.CPUID_ENTRY.unpack_from(cpuid, at)
        if leaf == 7 and f"7.{subleaf}" in LEAVES:
            found[f"7.{subleaf}"] = edx
    return found


def _try_cpuid(kvm: Kvm) -> dict[str, int]:
    """Ask for every bit of :data:`LEAVES` with KVM_SET_CPUID2, and see which of them the vCPU has then."""
    wanted = bytearray(kvm.supported_cpuid())
    for at in range(8, len(wanted), ioctls.CPUID_ENTRY.size):
        entry = list(ioctls.CPUID_ENTRY.unpack_from(wanted, at))
        if entry[0] == 7 and f"7.{entry[1]}" in LEAVES:
            entry[6] |= LEAVES[f"7.{entry[1]}"]
            ioctls.CPUID_ENTRY.pack_into(wanted, at, *entry)
    vm = Vm(kvm)
    try:
        vm.create_vcpu(0)
        fd = vm.vcpus[0].fd
        if ioctls.attempt(fd, ioctls.SET_CPUID2, wanted) < 0:
            return dict.fromkeys(LEAVES, 0)
        room = 256
        has = bytearray(struct.pack("<I4x", room) + bytes(ioctls.CPUID_ENTRY.size * room))
        fcntl.ioctl(fd, ioctls.GET_CPUID2, has)
        kept = _leaf_7(bytes(has[: 8 + ioctls.CPUID_ENTRY.size * struct.unpack_from("<I", has)[0]]))
        return {leaf: kept[leaf] & bits for leaf, bits in LEAVES.items()}
    finally:
        vm.close()


def _series_ioctl(kvm: Kvm) -> str:
    result = ioctls.attempt(kvm.fd, KVM_GET_SUPPORTED_FORCE_SPEC_CTRL.number, bytearray(8))
    return ioctls.name_of(-result) if result < 0 else "0"
