"""The VM fd: the capability, the MSR filter, the creation of vCPUs."""

import errno
from dataclasses import dataclass, field

from specctrl.model.contract import can_force
from specctrl.model.kvm.filters import ALLOW_ALL, MsrFilter, check_filter
from specctrl.model.outcomes import Errno
from specctrl.model.parts import Host
from specctrl.model.registers import KVM_CAP_FORCE_SPEC_CTRL, KVM_CAP_X86_USER_SPACE_MSR
from specctrl.model.words import is_subset

MSR_EXIT_REASONS = 0x7
"""The bits of KVM_CAP_X86_USER_SPACE_MSR: INVAL 1, UNKNOWN 2, FILTER 4."""
MAX_VCPU_ID = 4096
"""vCPU numbers are smaller than this (KVM_MAX_VCPU_IDS)."""


@dataclass(slots=True)
class Vm:
    """One VM, as far as its vCPUs' IA32_SPEC_CTRL and MSR accesses depend on it."""

    host: Host
    user_mask: int = 0  # args[0] of KVM_CAP_FORCE_SPEC_CTRL: bits that no guest of this VM can change
    user_value: int = 0  # args[1]: what those bits are
    created_vcpus: int = 0
    exit_reasons: int = 0  # args[0] of KVM_CAP_X86_USER_SPACE_MSR
    msr_filter: MsrFilter = field(default=ALLOW_ALL)

    def enable_cap(self, capability: int, flags: int, mask: int, value: int) -> None:
        """KVM_ENABLE_CAP on the VM fd; ``mask`` and ``value`` are args[0] and args[1].

        Errno(EINVAL) for flags, an unknown capability, or arguments that the capability refuses.

        Source: RFC v3 p1; Linux, kvm_vm_ioctl_enable_cap.
        """
        if flags:
            raise Errno(errno.EINVAL)
        if capability == KVM_CAP_FORCE_SPEC_CTRL:
            self.force_spec_ctrl(mask, value)
        elif capability == KVM_CAP_X86_USER_SPACE_MSR:
            if not is_subset(mask, MSR_EXIT_REASONS):
                raise Errno(errno.EINVAL)
            self.exit_reasons = mask
        else:
            raise Errno(errno.EINVAL)

    def force_spec_ctrl(self, mask: int, value: int) -> None:
        """KVM_CAP_FORCE_SPEC_CTRL on the VM fd: what every vCPU created later starts with.

        Repeating it replaces the pair; (0, 0) takes it back.  Errno(EINVAL) once a vCPU exists,
        and for a pair that :func:`specctrl.model.contract.can_force` refuses.

        Source: RFC v3 p1, kvm_vm_ioctl_enable_cap, under kvm->lock.

        >>> from specctrl.model.parts import resolve_host
        >>> vm = Vm(resolve_host("sapphire-rapids"))
        >>> vm.force_spec_ctrl(mask=0x400, value=0x400)
        >>> hex(vm.user_mask)
        '0x400'
        """
        if self.created_vcpus:
            raise Errno(errno.EINVAL)
        if not can_force(self.host, mask, value):
            raise Errno(errno.EINVAL)
        self.user_mask = mask
        self.user_value = value

    def set_msr_filter(self, msr_filter: MsrFilter) -> None:
        """KVM_X86_SET_MSR_FILTER: replaces the whole filter; Errno(EINVAL) leaves it as it was.

        The vCPUs are told by their ``msr_filter_changed``.

        Source: Linux, kvm_vm_ioctl_set_msr_filter.
        """
        check_filter(msr_filter)
        self.msr_filter = msr_filter

    def count_vcpu(self, number: int, exists: bool) -> None:
        """The part of KVM_CREATE_VCPU that can fail; a failed creation leaves the count as it was.

        Errno(EINVAL) for a number that is too large, Errno(EEXIST) for one in use.

        Source: Linux, kvm_vm_ioctl_create_vcpu.
        """
        if number >= MAX_VCPU_ID:
            raise Errno(errno.EINVAL)
        if exists:
            raise Errno(errno.EEXIST)
        self.created_vcpus += 1
