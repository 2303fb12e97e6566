"""The virtual MSRs kept in userspace: behind an MSR filter, with the capability on the vCPU's fd.

What the guest sees of its report, and what follows from it, is the contract's; what the two other MSRs yield, and that
they are read-only, is known here.  It works on a kernel that has the filter and the (proposed) per-vCPU capability.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from specctrl.model.contract import Contract, ReportKeptBy
from specctrl.model.outcomes import ExitKind, Fault
from specctrl.model.parts import Features, Host
from specctrl.model.registers import (
    MITIGATION_CTRL_SUPPORT,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
)

FILTER_EXITS = 4
"""args[0] of KVM_CAP_X86_USER_SPACE_MSR: exits with reason FILTER only."""

VIRTUAL_MSR_FILTER: list[dict[str, Any]] = [
    {"base": MSR_VIRTUAL_ENUMERATION, "count": 3, "read": True, "write": True, "allow": [False, False, False]}
]
"""The ranges of KVM_X86_SET_MSR_FILTER that hand the three virtual MSRs to userspace."""


@dataclass(slots=True)
class ReportKeeper:
    """The report of one vCPU, kept by its VMM.

    >>> from specctrl.model.parts import guest_features, resolve_host
    >>> host = resolve_host("sapphire-rapids")
    >>> keeper = keep_report(host, guest_features(host.features), offered=0x3)
    >>> keeper.reply(ExitKind.WRMSR, 0x50000002, 0x1)
    {'error': False}
    >>> [hex(word) for word in keeper.pair()]
    ['0x400', '0x400']
    >>> keeper.reply(ExitKind.WRMSR, 0x50000001, 0x3)
    {'error': True}
    """

    contract: Contract

    def reply(self, kind: ExitKind, msr: int, value: int) -> dict[str, Any]:
        """The arguments of ``reply_msr_exit`` for this exit: a value for RDMSR, or whether there is an error.

        ``value`` is what WRMSR writes.
        """
        try:
            if kind is ExitKind.RDMSR:
                return {"value": self.read(msr)}
            if msr != MSR_VIRTUAL_MITIGATION_CTRL:
                return {"error": True}
            self.contract.write_report(value)
            return {"error": False}
        except Fault:
            return {"error": True}

    def read(self, msr: int) -> int:
        """What the guest reads; Fault(#GP) where the MSR is not shown."""
        report = self.contract.read_report()
        if msr == MSR_VIRTUAL_ENUMERATION:
            return MITIGATION_CTRL_SUPPORT
        if msr == MSR_VIRTUAL_MITIGATION_ENUM:
            return self.contract.offered
        return report

    def pair(self) -> tuple[int, int]:
        """The mask and value that the vCPU's capability must have now."""
        return self.contract.force()

    def complete(self, kind: ExitKind, msr: int, value: int, force: Callable[[int, int], object]) -> dict[str, Any]:
        """The reply to this exit, when the pair that is asked for now is in force.

        ``force`` puts a mask and a value on the vCPU, with the vCPU's capability.
        """
        arguments = self.reply(kind, msr, value)
        force(*self.pair())
        return arguments

    def reset(self) -> None:
        """A platform reset: what the VMM kept is gone, as rule reset.userspace asks."""
        self.contract.report = 0

    def arrive(self, destination: Host) -> None:
        """The VM runs on another host now: the report is the same, what it asks for may not be."""
        self.contract.host = destination


def keep_report(host: Host, cpuid: Features, offered: int) -> ReportKeeper:
    """A keeper for a new vCPU of a VMM that sets bit 63; ``offered`` is what the guest may report.

    Where the guest's CPUID hides IA32_ARCH_CAPABILITIES, nothing tells it of the virtual MSRs: each access is #GP.

    >>> from specctrl.model.parts import resolve_host
    >>> keeper = keep_report(resolve_host("sapphire-rapids"), Features(bhi_ctrl=True), offered=0x3)
    >>> keeper.reply(ExitKind.RDMSR, 0x50000002, 0)
    {'error': True}
    """
    return ReportKeeper(Contract(host, cpuid, ReportKeptBy.USERSPACE, offered, announced=cpuid.arch_capabilities))
