"""Forcing bits of IA32_SPEC_CTRL with an MSR filter alone, on a KVM that knows nothing of this specification.

Nobody proposed this; it was tried on the emulator only.  The filter denies both accesses of the MSR, so each one
exits to userspace, which remembers what the guest wrote and gives KVM that value with the forced bits in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from specctrl.model.outcomes import ExitKind
from specctrl.model.registers import IA32_SPEC_CTRL
from specctrl.model.words import merge

SPEC_CTRL_FILTER: list[dict[str, Any]] = [
    {"base": IA32_SPEC_CTRL, "count": 1, "read": True, "write": True, "allow": [False]}
]
"""The ranges of KVM_X86_SET_MSR_FILTER that hand every access of IA32_SPEC_CTRL to userspace."""


@dataclass(slots=True)
class FilteredSpecCtrl:
    """IA32_SPEC_CTRL of one vCPU, kept by its VMM.

    ``set_msr`` is KVM_SET_MSRS of this one MSR: whether KVM took the value.

    >>> given = []
    >>> kept = FilteredSpecCtrl(0x400, 0x400, set_msr=lambda value: not given.append(hex(value)))
    >>> kept.answer(ExitKind.WRMSR, 0x1), given
    ({'error': False}, ['0x401'])
    >>> kept.answer(ExitKind.RDMSR, 0)
    {'value': 1}
    """

    mask: int
    value: int
    set_msr: Callable[[int], bool]
    view: int = 0  # what the guest wrote last; what migrates

    def answer(self, kind: ExitKind, value: int) -> dict[str, Any]:
        """The arguments of ``reply_msr_exit``: what the guest reads, or whether its write is #GP."""
        if kind is ExitKind.RDMSR:
            return {"value": self.view}
        if not self.set_msr(merge(value, self.mask, self.value)):
            return {"error": True}
        self.view = value
        return {"error": False}
