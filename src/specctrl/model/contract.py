"""What guest, userspace and host may observe of one vCPU, whoever implements it.

No VMCS, no cache, no interception: four words and a level.  Any hypervisor is bound by this; the mechanism
in ``processor`` and ``kvm`` is how KVM does it.
"""

from dataclasses import dataclass
from enum import Enum

from specctrl.model.outcomes import GP, Fault
from specctrl.model.parts import Features, Host
from specctrl.model.registers import (
    BHB_CLEAR_SEQ_S_USED,
    BHI_DIS_S,
    IBRS,
    RETPOLINE_S_USED,
    RRSBA_DIS_S,
    SSBD,
    STIBP,
    VALID_MITIGATION_CTRL,
)
from specctrl.model.words import is_subset, merge, newly_set, overlay


class ReportKeptBy(Enum):
    """Who keeps the guest's report: where the virtual MSRs live."""

    KVM = "kvm"  # in the kernel, as RFC v3 posts them
    USERSPACE = (
        "userspace"  # behind an MSR filter, with the per-vCPU capability: agreed on the list in June 2024
    )
    NOBODY = "nobody"  # there are no virtual MSRs


def supported_force_spec_ctrl(host: Host) -> int:
    """The bits of IA32_SPEC_CTRL that can be forced to 1 on this host.

    Empty without the control.  RRSBA_DIS_S also needs a host with RRSBA behaviour; the bits of
    IPRED_CTRL, PSFD, DDPD_U and RRSBA_DIS_U are never in the set.

    Source: RFC v3 p1, kvm_caps.supported_force_spec_ctrl.

    >>> from specctrl.model.parts import resolve_host
    >>> hex(supported_force_spec_ctrl(resolve_host("sapphire-rapids")))
    '0x447'
    >>> supported_force_spec_ctrl(resolve_host("ice-lake-server"))
    0
    """
    if not host.spec_ctrl_shadow:
        return 0
    bits = IBRS
    if host.features.stibp:
        bits |= STIBP
    if host.features.ssbd:
        bits |= SSBD
    if host.features.rrsba_ctrl and host.features.rrsba:
        bits |= RRSBA_DIS_S
    if host.features.bhi_ctrl:
        bits |= BHI_DIS_S
    return bits


def can_force(host: Host, mask: int, value: int) -> bool:
    """Whether userspace may force ``value`` under ``mask`` on this host; both are 64-bit words.

    Some bit must be supported, and ``value`` a subset of the supported set and of ``mask``.
    ``mask`` itself may have any bit.

    Source: RFC v3 p1, kvm_vm_ioctl_enable_cap.

    >>> from specctrl.model.parts import resolve_host
    >>> can_force(resolve_host("sapphire-rapids"), mask=0xffff_ffff, value=0x400)
    True
    >>> can_force(resolve_host("ice-lake-server"), mask=0x4, value=0x0)
    False
    """
    supported = supported_force_spec_ctrl(host)
    return supported != 0 and is_subset(value, supported) and is_subset(value, mask)


def requested_bits(host: Host, report: int) -> int:
    """The bits of IA32_SPEC_CTRL that a guest's report asks for and that this host can deliver.

    ``report`` is the value of MSR_VIRTUAL_MITIGATION_CTRL.

    Source: RFC v3 p9, p10 (vmx_set_msr, MSR_VIRTUAL_MITIGATION_CTRL).

    >>> from specctrl.model.parts import resolve_host
    >>> hex(requested_bits(resolve_host("sapphire-rapids"), report=0x3))
    '0x440'
    >>> requested_bits(resolve_host("ice-lake-server"), report=0x3)
    0
    """
    bits = 0
    if report & BHB_CLEAR_SEQ_S_USED and host.features.bhi_ctrl and not host.features.bhi_no:
        bits |= BHI_DIS_S
    if report & RETPOLINE_S_USED and host.features.rrsba_ctrl and host.features.rrsba:
        bits |= RRSBA_DIS_S
    return bits


@dataclass(slots=True)
class Contract:
    """One vCPU as its observers may see it.

    >>> from specctrl.model.parts import PARTS, guest_features, resolve_host
    >>> host = resolve_host("sapphire-rapids")
    >>> vcpu = Contract(host, guest_features(host.features), ReportKeptBy.KVM, offered=0x3)
    >>> vcpu.write_report(0x1)
    >>> vcpu.write_view(0x1)
    >>> hex(vcpu.read_view()), hex(vcpu.effective())
    ('0x1', '0x401')
    """

    host: Host
    cpuid: Features  # what the guest's CPUID shows
    kept_by: ReportKeptBy
    offered: int  # the report's bits that MSR_VIRTUAL_MITIGATION_ENUM tells the guest of
    announced: bool = True  # whether the guest is shown the virtual MSRs at all
    init_withdraws_report: bool = True

    guest_view: int = 0  # what the guest wrote to IA32_SPEC_CTRL and reads back
    user_mask: int = 0  # userspace's force mask and value
    user_value: int = 0
    report: int = 0  # what the guest said of its software mitigations
    level: int = 1  # 1: L1 runs, 2: L2 runs; the guest's view is one and the same

    def force(self) -> tuple[int, int]:
        """Mask and value in force: userspace's pair, and what the report asks for where that leaves room."""
        requested = 0 if self.kept_by is ReportKeptBy.NOBODY else requested_bits(self.host, self.report)
        if self.kept_by is ReportKeptBy.USERSPACE:
            requested = requested & supported_force_spec_ctrl(self.host)
        return overlay(self.user_mask, self.user_value, requested)

    def effective(self) -> int:
        """What the processor's IA32_SPEC_CTRL holds while the guest runs, at either level."""
        return merge(self.guest_view, *self.force())

    def acceptable(self, view: int) -> bool:
        """Whether the guest may hold this view: the processor must accept what would take effect."""
        return self.host.has_spec_ctrl and is_subset(merge(view, *self.force()), self.host.writable)

    def read_view(self) -> int:
        """The guest reads IA32_SPEC_CTRL: what it wrote.  Fault(#GP) if its CPUID does not show the MSR."""
        if not self.cpuid.spec_ctrl:
            raise Fault(GP)
        return self.guest_view

    def write_view(self, value: int) -> None:
        """The guest writes IA32_SPEC_CTRL.  Fault(#GP) if its CPUID hides it, or the merged value is refused."""
        if not self.cpuid.spec_ctrl or not self.acceptable(value):
            raise Fault(GP)
        self.guest_view = value

    def read_report(self) -> int:
        """The guest reads its report.  Fault(#GP) where the MSR is not shown."""
        if self.kept_by is ReportKeptBy.NOBODY or not self.announced:
            raise Fault(GP)
        return self.report

    def write_report(self, value: int) -> None:
        """The guest reports.  Fault(#GP) where the MSR is not shown, for a reserved bit, or a new bit not offered."""
        if self.kept_by is ReportKeptBy.NOBODY or not self.announced:
            raise Fault(GP)
        if not is_subset(value, VALID_MITIGATION_CTRL):
            raise Fault(GP)
        if not is_subset(newly_set(value, self.report), self.offered):
            raise Fault(GP)
        self.report = value

    def init(self) -> None:
        """INIT outside VMX operation and SMM: the view is 0; the report is withdrawn where INIT reaches it."""
        self.guest_view = 0
        if self.kept_by is ReportKeptBy.KVM and self.init_withdraws_report:
            self.report = 0

    def userspace_force(self, mask: int, value: int) -> bool:
        """Userspace replaces this vCPU's pair (proposed); False, and nothing changes, if it is refused."""
        if not can_force(self.host, mask, value):
            return False
        before = (self.user_mask, self.user_value)
        self.user_mask, self.user_value = mask, value
        if not self.acceptable(self.guest_view):
            self.user_mask, self.user_value = before
            return False
        return True

    def restore_view(self, value: int) -> bool:
        """Userspace sets the guest's view (KVM_SET_MSRS); False, and nothing changes, if it is not acceptable."""
        if not self.acceptable(value):
            return False
        self.guest_view = value
        return True

    def restore_report(self, value: int) -> bool:
        """Userspace sets the report (KVM_SET_MSRS); False, and no change, for a reserved bit or another keeper."""
        if self.kept_by is not ReportKeptBy.KVM or not is_subset(value, VALID_MITIGATION_CTRL):
            return False
        self.report = value
        return True

    def move(self, destination: Host) -> bool:
        """Migration: the same view, pair and report on another host; False, and nothing changes, if refused.

        A view can be refused only if there is one: a host without the MSR gives its guests none.
        """
        if (self.user_mask or self.user_value) and not can_force(
            destination, self.user_mask, self.user_value
        ):
            return False
        before = self.host
        self.host = destination
        if before.has_spec_ctrl and not self.acceptable(self.guest_view):
            self.host = before
            return False
        return True
