"""MSR filters (KVM_X86_SET_MSR_FILTER): which guest accesses KVM performs itself.

Source: Linux, Documentation/virt/kvm/api.rst, KVM_X86_SET_MSR_FILTER.
"""

import errno
from dataclasses import dataclass

from specctrl.model.outcomes import Errno

MAX_RANGES = 16
"""Ranges in one filter at the most."""
MAX_RANGE_MSRS = 0x600 * 8
"""MSRs in one range at the most: a bitmap of 0x600 bytes."""
X2APIC_FIRST, X2APIC_LAST = 0x800, 0x8FF
"""The x2APIC MSRs, which no filter reaches."""


def is_x2apic(msr: int) -> bool:
    """Whether an MSR is one of the x2APIC MSRs, 0x800 to 0x8ff.

    >>> [hex(msr) for msr in (0x7FF, 0x800, 0x8FF, 0x900) if is_x2apic(msr)]
    ['0x800', '0x8ff']
    """
    return X2APIC_FIRST <= msr <= X2APIC_LAST


@dataclass(frozen=True, slots=True)
class FilterRange:
    """Some MSRs, and for each whether the accesses named by ``read`` and ``write`` are allowed."""

    base: int
    count: int
    read: bool
    write: bool
    allow: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class MsrFilter:
    """The filter of a VM: the first range that has the MSR and the direction decides, else the default."""

    default_allow: bool = True
    ranges: tuple[FilterRange, ...] = ()

    def allows(self, msr: int, write: bool) -> bool:
        """Whether KVM performs this access of the guest.

        >>> deny = FilterRange(base=0x48, count=1, read=False, write=True, allow=(False,))
        >>> MsrFilter(ranges=(deny,)).allows(0x48, write=True), MsrFilter(ranges=(deny,)).allows(0x48, write=False)
        (False, True)
        """
        if is_x2apic(msr):
            return True
        for entry in self.ranges:
            covers = entry.write if write else entry.read
            if covers and entry.base <= msr < (entry.base + entry.count) & 0xFFFF_FFFF:  # KVM's end is a u32
                return entry.allow[msr - entry.base]
        return self.default_allow


ALLOW_ALL = MsrFilter()
"""The filter of a new VM."""


def check_filter(candidate: MsrFilter) -> None:
    """Errno(EINVAL) for a filter that KVM_X86_SET_MSR_FILTER refuses.

    Too many ranges, a range that is too long or has no direction, a default of deny without any MSR in a range.
    An empty range is not looked at.

    >>> check_filter(MsrFilter(default_allow=False))
    Traceback (most recent call last):
    ...
    specctrl.model.outcomes.Errno: EINVAL
    """
    if len(candidate.ranges) > MAX_RANGES:
        raise Errno(errno.EINVAL)
    for entry in candidate.ranges:
        if entry.count and (entry.count > MAX_RANGE_MSRS or not (entry.read or entry.write)):
            raise Errno(errno.EINVAL)
    has_msrs = any(entry.count for entry in candidate.ranges)
    if not candidate.default_allow and not has_msrs:
        raise Errno(errno.EINVAL)
