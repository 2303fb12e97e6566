"""Second floor of a vCPU: the MSR accesses that KVM performs, for the guest and for userspace.

A refusal is MsrRefused: #GP or an exit to userspace for the guest, a short count for KVM_SET_MSRS,
a failure of the list for L1's MSR lists.
"""

from dataclasses import dataclass
from typing import NoReturn

from specctrl.model.kvm.entry import VcpuEntry
from specctrl.model.kvm.filters import is_x2apic
from specctrl.model.kvm.system import FEATURE_MSRS
from specctrl.model.outcomes import ExitReason, MsrRefused
from specctrl.model.registers import (
    ARCH_CAP_VIRTUAL_ENUM,
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    MITIGATION_CTRL_SUPPORT,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
    VALID_ENUMERATION,
    VALID_MITIGATION_CTRL,
    VALID_MITIGATION_ENUM,
)
from specctrl.model.words import is_subset, merge, newly_set


def refuse_unless(condition: bool) -> None:
    """MsrRefused(INVAL) unless the condition holds."""
    if not condition:
        raise MsrRefused(ExitReason.INVAL)


def refuse_other(msr: int) -> NoReturn:
    """MsrRefused for an MSR of which this specification says nothing: UNKNOWN, but INVAL for the x2APIC MSRs.

    KVM has those, and refuses them while the vCPU's APIC is not in x2APIC mode; here it never is.

    Source: Linux, kvm_x2apic_msr_read and kvm_x2apic_msr_write; the end of kvm_get_msr_common and kvm_set_msr_common.
    """
    raise MsrRefused(ExitReason.INVAL if is_x2apic(msr) else ExitReason.UNKNOWN)


@dataclass(slots=True)
class VcpuMsrs(VcpuEntry):
    """MSR accesses performed by KVM; always in root operation."""

    # ---- who asks

    def emulate_rdmsr(self, msr: int) -> int:
        """A guest's RDMSR, performed by KVM: an intercepted instruction, or an entry of L1's store list.

        MsrRefused(FILTER) if the MSR filter denies it, else as :meth:`read_msr`.

        Source: Linux, kvm_emulate_msr_read.
        """
        if not self.vm.msr_filter.allows(msr, write=False):
            raise MsrRefused(ExitReason.FILTER)
        return self.read_msr(msr, host_initiated=False)

    def emulate_wrmsr(self, msr: int, value: int) -> None:
        """A guest's WRMSR, performed by KVM: an intercepted instruction, or an entry of L1's load lists.

        MsrRefused(FILTER) if the MSR filter denies it, else as :meth:`write_msr`.

        Source: Linux, kvm_emulate_msr_write.
        """
        if not self.vm.msr_filter.allows(msr, write=True):
            raise MsrRefused(ExitReason.FILTER)
        self.write_msr(msr, value, host_initiated=False)

    def host_write_msr(self, msr: int, value: int) -> None:
        """One entry of KVM_SET_MSRS.  A feature MSR is frozen after the first VM entry: only its own value passes.

        Source: Linux, do_set_msr and kvm_is_immutable_feature_msr; RFC v3 p7, p8 add the virtual MSRs.
        """
        if self.has_run and msr in FEATURE_MSRS:
            refuse_unless(bool(self.read_msr(msr, host_initiated=True) == value))
            return
        self.write_msr(msr, value, host_initiated=True)

    # ---- which MSR

    def read_msr(self, msr: int, host_initiated: bool) -> int:
        """The value of one MSR; MsrRefused(INVAL) if it may not be read; any other as :func:`refuse_other`.

        Source: RFC v3 p7, p8 (kvm_get_msr_common, vmx_get_msr).
        """
        if msr == IA32_SPEC_CTRL:
            refuse_unless(host_initiated or self.cpuid.shows_spec_ctrl)
            return self.read_spec_ctrl()
        if msr == IA32_ARCH_CAPABILITIES:
            refuse_unless(host_initiated or self.cpuid.arch_capabilities)
            return self.arch_capabilities
        if msr == MSR_VIRTUAL_ENUMERATION:
            refuse_unless(host_initiated or self.shows_enumeration())
            return self.virtual_enumeration
        if msr == MSR_VIRTUAL_MITIGATION_ENUM:
            refuse_unless(host_initiated or self.shows_mitigation_ctrl())
            return self.mitigation_enum
        if msr == MSR_VIRTUAL_MITIGATION_CTRL:
            refuse_unless(host_initiated or self.shows_mitigation_ctrl())
            return self.mitigation_ctrl
        refuse_other(msr)

    def write_msr(self, msr: int, value: int, host_initiated: bool) -> None:
        """Write one MSR; MsrRefused(INVAL) if it may not be written so; any other as :func:`refuse_other`.

        Source: RFC v3 p7, p8 (kvm_set_msr_common, vmx_set_msr).
        """
        if msr == IA32_SPEC_CTRL:
            refuse_unless(host_initiated or self.cpuid.shows_spec_ctrl)
            self.write_spec_ctrl(value)
        elif msr == IA32_ARCH_CAPABILITIES:
            refuse_unless(host_initiated)
            self.arch_capabilities = value
        elif msr == MSR_VIRTUAL_ENUMERATION:
            refuse_unless(host_initiated and is_subset(value, VALID_ENUMERATION))
            self.virtual_enumeration = value
        elif msr == MSR_VIRTUAL_MITIGATION_ENUM:
            refuse_unless(host_initiated and is_subset(value, VALID_MITIGATION_ENUM))
            self.mitigation_enum = value
        elif msr == MSR_VIRTUAL_MITIGATION_CTRL:
            refuse_unless(host_initiated or self.shows_mitigation_ctrl())
            self.write_mitigation_ctrl(value, host_initiated)
        else:
            refuse_other(msr)

    # ---- IA32_SPEC_CTRL

    def read_spec_ctrl(self) -> int:
        """A read of IA32_SPEC_CTRL that KVM performs: the guest's view, whatever is forced, on every host.

        Source: RFC v3 p1, p2 (vmx_get_msr); repairs D3.
        """
        return self.guest_view

    def write_spec_ctrl(self, value: int) -> None:
        """A write of IA32_SPEC_CTRL that KVM performs; by the guest at L1 or L2, or by userspace.

        Refused iff the host refuses the *merged* value, as the processor would.  The first non-zero
        value written stops the interception, where nothing else needs it.

        Source: RFC v3 p1 (vmx_set_msr, vmx_set_spec_ctrl); repairs D2, D3, D8.
        """
        merged = merge(value, self.force_mask, self.force_value)
        refuse_unless(self.cpu.accepts(merged))
        self.guest_view = value
        self.saved = merged
        if self.cpu.has_control:
            self.cpu.write_shadow(self.vmcs, value)
        if value and self.may_pass_through():
            self.passthrough = True
            self.update_interception()

    # ---- the virtual MSRs

    def shows_enumeration(self) -> bool:
        """Whether the guest may read MSR_VIRTUAL_ENUMERATION: its CPUID and bit 63 announce it.

        Source: RFC v3 p7; the CPUID test repairs D10.
        """
        return self.cpuid.arch_capabilities and bool(self.arch_capabilities & ARCH_CAP_VIRTUAL_ENUM)

    def shows_mitigation_ctrl(self) -> bool:
        """Whether the guest may access MSR_VIRTUAL_MITIGATION_ENUM and _CTRL.

        Source: RFC v3 p8; the test of bit 63 repairs D10.
        """
        return self.shows_enumeration() and bool(self.virtual_enumeration & MITIGATION_CTRL_SUPPORT)

    def write_mitigation_ctrl(self, value: int, host_initiated: bool) -> None:
        """A report: the guest, or userspace for it, says which software mitigations are in use.

        A reserved bit is refused; of the guest also a bit that it *sets* although
        MSR_VIRTUAL_MITIGATION_ENUM does not offer it (such a bit may be kept or cleared).

        Source: RFC v3 p8-p10 (vmx_set_msr); the test of what is offered repairs D10.
        """
        refuse_unless(is_subset(value, VALID_MITIGATION_CTRL))
        if not host_initiated:
            refuse_unless(is_subset(newly_set(value, self.mitigation_ctrl), self.mitigation_enum))
        self.mitigation_ctrl = value
        self.update_force()
