"""The ``/dev/kvm`` fd: what this KVM on this host can do."""

import errno

from specctrl.model.contract import supported_force_spec_ctrl
from specctrl.model.outcomes import Errno
from specctrl.model.parts import Host, arch_capabilities
from specctrl.model.registers import (
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    KVM_CAP_FORCE_SPEC_CTRL,
    KVM_CAP_X86_MSR_FILTER,
    KVM_CAP_X86_USER_SPACE_MSR,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
    VALID_ENUMERATION,
    VALID_MITIGATION_ENUM,
)


def check_extension(host: Host, capability: int) -> int:
    """KVM_CHECK_EXTENSION, on the ``/dev/kvm`` fd or a VM fd: 1 if there, 0 if not or unknown.

    For KVM_CAP_FORCE_SPEC_CTRL the answer is 1 when some bit can be forced to 1, not the set of bits.

    Source: RFC v3 p1, kvm_vm_ioctl_check_extension.

    >>> from specctrl.model.parts import resolve_host
    >>> check_extension(resolve_host("sapphire-rapids"), KVM_CAP_FORCE_SPEC_CTRL)
    1
    """
    if capability == KVM_CAP_FORCE_SPEC_CTRL:
        return 1 if supported_force_spec_ctrl(host) else 0
    if capability in (KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_X86_MSR_FILTER):
        return 1
    return 0


def get_supported_force_spec_ctrl(host: Host, fd: str, bad_pointer: bool) -> int:
    """KVM_GET_SUPPORTED_FORCE_SPEC_CTRL: the bits that can be forced to 1.

    ``fd`` is "kvm" for ``/dev/kvm`` or "vm"; ``bad_pointer``: the answer cannot be written where the caller wants it.
    Errno: ENOTTY on a VM fd; EFAULT for a bad pointer.

    Source: RFC v3 p1, kvm_arch_dev_ioctl.

    >>> from specctrl.model.parts import resolve_host
    >>> hex(get_supported_force_spec_ctrl(resolve_host("sapphire-rapids"), "kvm", bad_pointer=False))
    '0x447'
    """
    if fd != "kvm":
        raise Errno(errno.ENOTTY)
    if bad_pointer:
        raise Errno(errno.EFAULT)
    return supported_force_spec_ctrl(host)


def msr_index_list(host: Host) -> tuple[int, ...]:
    """KVM_GET_MSR_INDEX_LIST, as far as modelled: the MSRs to save and restore, in KVM's order.

    IA32_SPEC_CTRL is listed only where the host has it; the others are emulated and always listed.

    Source: RFC v3 p7, p8 (emulated_msrs_all); Linux, kvm_init_msr_lists.

    >>> from specctrl.model.parts import resolve_host
    >>> [hex(msr) for msr in msr_index_list(resolve_host("sapphire-rapids"))]
    ['0x48', '0x10a', '0x50000000', '0x50000001', '0x50000002']
    """
    emulated = (
        IA32_ARCH_CAPABILITIES,
        MSR_VIRTUAL_ENUMERATION,
        MSR_VIRTUAL_MITIGATION_ENUM,
        MSR_VIRTUAL_MITIGATION_CTRL,
    )
    if host.has_spec_ctrl:
        return (IA32_SPEC_CTRL, *emulated)
    return emulated


FEATURE_MSRS = (IA32_ARCH_CAPABILITIES, MSR_VIRTUAL_ENUMERATION, MSR_VIRTUAL_MITIGATION_ENUM)
"""KVM_GET_MSR_FEATURE_INDEX_LIST, as far as modelled (RFC v3 p7, p8)."""


def feature_msr(host: Host, msr: int) -> int | None:
    """What KVM_GET_MSRS on the ``/dev/kvm`` fd answers for one MSR; None if it is no feature MSR.

    Source: RFC v3 p7-p10, kvm_get_msr_feature: the valid set of each virtual MSR.

    >>> from specctrl.model.parts import resolve_host
    >>> feature_msr(resolve_host("ice-lake-server"), MSR_VIRTUAL_MITIGATION_ENUM)
    3
    """
    if msr == IA32_ARCH_CAPABILITIES:
        return arch_capabilities(host)
    if msr == MSR_VIRTUAL_ENUMERATION:
        return VALID_ENUMERATION
    if msr == MSR_VIRTUAL_MITIGATION_ENUM:
        return VALID_MITIGATION_ENUM
    return None
