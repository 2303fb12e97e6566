"""What a VMM shows to a guest that must be able to run on every host of a pool."""

from collections.abc import Sequence
from dataclasses import dataclass

from specctrl.model.parts import GUEST_FEATURES, Features, Host, arch_capabilities, features_from_names, guest_features
from specctrl.model.registers import (
    ARCH_CAP_RRSBA,
    ARCH_CAP_VIRTUAL_ENUM,
    MITIGATION_CTRL_SUPPORT,
    VALID_MITIGATION_ENUM,
)


@dataclass(frozen=True, slots=True)
class Advertised:
    """What the guest is shown, the same on every host of the pool."""

    cpuid: Features
    arch_capabilities: int  # IA32_ARCH_CAPABILITIES
    virtual_enumeration: int  # MSR_VIRTUAL_ENUMERATION
    mitigation_enum: int  # MSR_VIRTUAL_MITIGATION_ENUM


def advertise(pool: Sequence[Host], virtual_msrs: bool, tell_rrsba: bool = False) -> Advertised:
    """What every host of the pool has; ``pool`` has at least one host.

    ``virtual_msrs``: offer the report.  It is offered whole, also by a host that needs or can deliver no bit: the
    guest reports once, where it boots, and may move to a host that does.
    ``tell_rrsba``: show RRSBA when *any* host has it.  VMMs that treat each bit of IA32_ARCH_CAPABILITIES as a
    feature show it only when all have; but it is a warning, and its absence a promise.

    Source: rules vmm.pool.common-features, vmm.pool.virtual-msrs, vmm.pool.rrsba.

    >>> from specctrl.model.parts import resolve_host
    >>> mixed = [resolve_host("ice-lake-server"), resolve_host("sapphire-rapids")]
    >>> advertise(mixed, virtual_msrs=True).cpuid.names()
    ('SPEC_CTRL', 'STIBP', 'SSBD', 'ARCH_CAPABILITIES')
    >>> hex(advertise(mixed, virtual_msrs=True, tell_rrsba=True).arch_capabilities)
    '0x8000000000080000'
    """
    names = guest_features(pool[0].features).names()
    common = [name for name in names if all(name in host.features.names() for host in pool)]
    capabilities = arch_capabilities(pool[0])
    for host in pool[1:]:
        capabilities &= arch_capabilities(host)
    if tell_rrsba and any(host.features.rrsba for host in pool):
        capabilities |= ARCH_CAP_RRSBA
    if not virtual_msrs:
        capabilities &= ~ARCH_CAP_VIRTUAL_ENUM
    return Advertised(
        features_from_names(common, GUEST_FEATURES),
        capabilities,
        MITIGATION_CTRL_SUPPORT if virtual_msrs else 0,
        VALID_MITIGATION_ENUM if virtual_msrs else 0,
    )
