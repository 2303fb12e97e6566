"""What guest, userspace and host may observe of one vCPU, whoever implements it.

No VMCS, no cache: four words, and the mode that the guest is in.  Any hypervisor is bound by this; the mechanism
in ``processor`` and ``kvm`` is how KVM does it.
"""

from dataclasses import dataclass
from enum import Enum

from specctrl.model.outcomes import GP, Blocked, Fault, NestedEntryFailed, Reflected, VmxAbort
from specctrl.model.parts import Features, Host
from specctrl.model.registers import (
    BHB_CLEAR_SEQ_S_USED,
    BHI_DIS_S,
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    IBRS,
    MSR_VIRTUAL_MITIGATION_CTRL,
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
    USERSPACE = "userspace"  # behind an MSR filter, with the capability per vCPU that the list agreed on in June 2024
    NOBODY = "nobody"  # there are no virtual MSRs


@dataclass(frozen=True, slots=True)
class Intercept:
    """One MSR that L1's bitmap intercepts while its L2 runs."""

    msr: int
    read: bool = True
    write: bool = True


@dataclass(frozen=True, slots=True)
class L1Controls:
    """What L1's VMCS for L2 says about MSRs: its bitmap, and its VM-exit MSR lists."""

    use_msr_bitmap: bool = True  # without one, every access of L2 goes to L1
    intercepts: tuple[Intercept, ...] = ()
    exit_msr_store: tuple[int, ...] = ()
    exit_msr_load: tuple[tuple[int, int], ...] = ()


NO_CONTROLS = L1Controls()
"""What L1 asks for before it first enters L2: nothing."""


def l1_asks(controls: L1Controls, msr: int, write: bool) -> bool:
    """Whether L1 asked to see an access of its L2: always, without a bitmap and for an MSR that no bitmap has.

    Of the MSRs of this interface a bitmap has IA32_SPEC_CTRL and IA32_ARCH_CAPABILITIES.  How KVM finds
    out is :func:`specctrl.model.kvm.nested.l1_intercepts`; the two are proven to agree.

    Source: SDM vol. 3, MSR-bitmap address.

    >>> l1_asks(L1Controls(), 0x48, write=True), l1_asks(L1Controls(), 0x5000_0002, write=True)
    (False, True)
    """
    if not controls.use_msr_bitmap or msr not in (IA32_SPEC_CTRL, IA32_ARCH_CAPABILITIES):
        return True
    return any(asked.msr == msr and (asked.write if write else asked.read) for asked in controls.intercepts)


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


MODE = ("level", "vmx_operation", "controls", "smm", "smm_left_level2", "smm_left_vmx", "init_pending", "shut_down")
"""The fields of the mode, which :class:`~specctrl.model.kvm.state.VcpuState` has under the same names."""


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

    # The mode.
    level: int = 1  # 1: L1 (or SMM) runs, 2: L2 runs; the guest's view is one and the same
    vmx_operation: bool = False  # L1 executed VMXON
    controls: L1Controls = NO_CONTROLS  # what L1 asked for when it last entered L2
    smm: bool = False
    smm_left_level2: bool = False  # the SMI came while L2 ran: RSM goes back there
    smm_left_vmx: bool = False  # the SMI came in VMX operation
    init_pending: bool = False
    shut_down: bool = False  # after a VMX abort

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
        if not self.cpuid.shows_spec_ctrl:
            raise Fault(GP)
        return self.guest_view

    def write_view(self, value: int) -> None:
        """The guest writes IA32_SPEC_CTRL.  Fault(#GP) if its CPUID hides it, or the merged value is refused."""
        if not self.cpuid.shows_spec_ctrl or not self.acceptable(value):
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

    # ---- the guest's instructions, at the level that runs

    def rdmsr(self, msr: int) -> int:
        """The guest executes RDMSR.  Reflected if L1 asked to see it; Fault(#GP) for an MSR that is not kept here."""
        self.show_l1(msr, write=False)
        if msr == IA32_SPEC_CTRL:
            return self.read_view()
        if msr == MSR_VIRTUAL_MITIGATION_CTRL:
            return self.read_report()
        raise Fault(GP)

    def wrmsr(self, msr: int, value: int) -> None:
        """The guest executes WRMSR.  Reflected if L1 asked to see it; else performed as an entry of a list is."""
        self.show_l1(msr, write=True)
        self.write(msr, value)

    def write(self, msr: int, value: int) -> None:
        """A guest's write that L1 does not see, or an entry of L1's lists.  Fault(#GP) for any other MSR."""
        if msr == IA32_SPEC_CTRL:
            self.write_view(value)
        elif msr == MSR_VIRTUAL_MITIGATION_CTRL:
            self.write_report(value)
        else:
            raise Fault(GP)

    def show_l1(self, msr: int, write: bool) -> None:
        """An access of L2 that L1 asked to see goes to L1 (Reflected), and has no other effect."""
        if self.level == 2 and l1_asks(self.controls, msr, write):
            self.reflect()

    # ---- the mode

    def reflect(self) -> None:
        """L2's exit goes to L1, with the lists that L1 gave at entry; raises Reflected."""
        self.leave_l2(self.controls.exit_msr_load)
        raise Reflected

    def enter_l2(self, controls: L1Controls) -> None:
        """L1's VM entry, before its list: L2 is to run, with what L1 asks for."""
        self.vmx_operation = True
        self.controls = controls
        self.level = 2

    def leave_l2(self, msr_load: tuple[tuple[int, int], ...] = ()) -> None:
        """L1 runs again, after its list, the entries of which are writes of the guest.  VmxAbort if one is refused."""
        self.level = 1
        for msr, value in msr_load:
            try:
                self.write(msr, value)
            except Fault:
                self.shut_down = True
                raise VmxAbort from None

    def vmlaunch(self, controls: L1Controls, msr_load: tuple[tuple[int, int], ...] = ()) -> None:
        """L1 enters L2; the entries of its list are writes of the guest.

        NestedEntryFailed if one is refused: what was written before it stays.  Reflected if an INIT was pending.
        """
        self.enter_l2(controls)
        for entry, (msr, value) in enumerate(msr_load, start=1):
            try:
                self.write(msr, value)
            except Fault:
                self.leave_l2(controls.exit_msr_load)
                raise NestedEntryFailed(entry) from None
        self.deliver_init()

    def vmxoff(self) -> None:
        """L1 leaves VMX operation; an INIT that was pending takes effect."""
        self.vmx_operation = False
        self.deliver_init()

    def smi(self) -> None:
        """An SMI: SMM runs at level 1, out of VMX operation.  No word changes."""
        self.smm = True
        self.smm_left_level2 = self.level == 2
        self.smm_left_vmx = self.vmx_operation
        self.vmx_operation = False
        self.level = 1

    def rsm(self) -> None:
        """RSM: back to where the SMI came.  A pending INIT takes effect there: in L2 it is Reflected."""
        self.smm = False
        self.vmx_operation = self.smm_left_vmx
        if self.smm_left_level2:
            self.level = 2
        self.smm_left_vmx = False
        self.smm_left_level2 = False
        self.deliver_init()

    def init(self) -> None:
        """INIT, then SIPI: a reset; in L2 a VM exit to L1 (Reflected); blocked (Blocked) in SMM and VMX operation."""
        self.init_pending = True
        self.deliver_init()
        if self.init_pending:
            raise Blocked

    def deliver_init(self) -> None:
        """An INIT that is pending takes effect, unless SMM blocks it, or VMX operation while L1 runs.

        Source: SDM vol. 3, INIT in VMX operation and in SMM.
        """
        if not self.init_pending or self.smm:
            return
        if self.level == 2:
            self.init_pending = False
            self.reflect()
        if not self.vmx_operation:
            self.init_reset()

    def init_reset(self) -> None:
        """What INIT resets: the view is 0; the report is withdrawn where INIT reaches it."""
        self.init_pending = False
        self.guest_view = 0
        if self.kept_by is ReportKeptBy.KVM and self.init_withdraws_report:
            self.report = 0

    def platform_reset(self) -> None:
        """Userspace resets the platform: no mode is left; view and report, whoever keeps it, are 0; its pair stays."""
        self.restore_mode(1, False, self.controls, False, False, False, False)
        self.shut_down = False
        self.restore_view(0)
        self.report = 0

    # ---- what userspace does

    def restore_mode(
        self, level: int, vmx_operation: bool, controls: L1Controls, smm: bool, smm_left_level2: bool,
        smm_left_vmx: bool, init_pending: bool,
    ) -> None:
        """Userspace sets the mode (KVM_SET_NESTED_STATE, KVM_SET_VCPU_EVENTS); no word changes."""
        self.level = level
        self.vmx_operation = vmx_operation
        self.controls = controls
        self.smm = smm
        self.smm_left_level2 = smm_left_level2
        self.smm_left_vmx = smm_left_vmx
        self.init_pending = init_pending

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
        if (self.user_mask or self.user_value) and not can_force(destination, self.user_mask, self.user_value):
            return False
        before = self.host
        self.host = destination
        if before.has_spec_ctrl and not self.acceptable(self.guest_view):
            self.host = before
            return False
        return True
