"""The plantable defects of the posted series, each planted alone in the specification's vCPU."""

from unittest.mock import patch

from specctrl.model.kvm.entry import VcpuEntry
from specctrl.model.kvm.msrs import refuse_unless
from specctrl.model.kvm.nested import l1_intercepts
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.registers import IA32_SPEC_CTRL, MITIGATION_CTRL_SUPPORT, VALID_MITIGATION_CTRL
from specctrl.model.words import is_subset


class D1(Vcpu):
    """A report does not reach the MASK field."""

    def update_force(self):
        mask = self.vmcs.spec_ctrl_mask
        VcpuEntry.update_force(self)
        self.vmcs.spec_ctrl_mask = mask


class D2(Vcpu):
    """The write path adds forced bits and takes none away."""

    def write_spec_ctrl(self, value):
        Vcpu.write_spec_ctrl(self, value)
        self.saved = value | self.force_value


class D3(Vcpu):
    """Without the control the interception is dropped although bits are forced."""

    def may_pass_through(self):
        return self.cpuid.spec_ctrl


class D4(Vcpu):
    """vmcs02's SHADOW is written only for a pending entry."""

    def load_vmcs(self, which):
        shadow = self.vmcs02.spec_ctrl_shadow
        Vcpu.load_vmcs(self, which)
        if which is Loaded.VMCS02 and not self.nested_run_pending:
            self.vmcs02.spec_ctrl_shadow = shadow


class D5(Vcpu):
    """A failed entry leaves vmcs01's SHADOW as it was."""

    def abandon_entry(self):
        self.nested_run_pending = False
        self.loaded = Loaded.VMCS01


class D7(Vcpu):
    """The VMCS that is loaded keeps an old MASK."""

    def load_vmcs(self, which):
        self.loaded = which
        if self.cpu.has_control:
            self.cpu.write_shadow(self.vmcs, self.guest_view)


class D8(Vcpu):
    """The value written is tested, not the merge."""

    def write_spec_ctrl(self, value):
        refuse_unless(self.cpu.accepts(value))
        Vcpu.write_spec_ctrl(self, value)


class D9(Vcpu):
    """INIT leaves the report."""

    def init_reset(self):
        report = self.mitigation_ctrl
        Vcpu.init_reset(self)
        self.mitigation_ctrl = report
        self.update_force()


class D10(Vcpu):
    """The enumeration bit alone shows the report."""

    def shows_mitigation_ctrl(self):
        return bool(self.virtual_enumeration & MITIGATION_CTRL_SUPPORT)


class D10Offered(Vcpu):
    """What MSR_VIRTUAL_MITIGATION_ENUM offers is not asked."""

    def write_mitigation_ctrl(self, value, host_initiated):
        refuse_unless(is_subset(value, VALID_MITIGATION_CTRL))
        self.mitigation_ctrl = value
        self.update_force()


class D18(Vcpu):
    """The host's restore is decided by the computed value, not by what the register holds."""

    def restore_host_spec_ctrl(self, held):
        Vcpu.restore_host_spec_ctrl(self, self.saved)


class D18WithDrift(D1):
    """D18 where the MASK field drifts."""

    restore_host_spec_ctrl = D18.restore_host_spec_ctrl


class D21(Vcpu):
    """A report applies the view again, unmasked and untested."""

    def update_force(self):
        VcpuEntry.update_force(self)
        self.saved = self.guest_view | self.force_value


def planted(defect):
    """The specification's variant with a defect."""
    return Variant(f"spec with {defect.__name__}", vcpu=defect)


# ---- what an implementer outside KVM may get wrong


class RestoreByView(Vcpu):
    """The host's value is not restored where the guest's view is that value."""

    def restore_host_spec_ctrl(self, held):
        if self.guest_view != self.host.spec_ctrl or self.host.legacy_ibrs:
            self.cpu.wrmsr(self.host.spec_ctrl)


class ReadsForWrites(Vcpu):
    """Whether L1 wants to see a read decides about writes."""

    def merge_bitmap(self):
        Vcpu.merge_bitmap(self)
        reads = l1_intercepts(self.controls, IA32_SPEC_CTRL, write=False)
        self.vmcs02.intercept_write = self.vmcs01.intercept_write or reads

    def wrmsr(self, msr, value):
        with patch("specctrl.model.kvm.vcpu.l1_intercepts", lambda controls, msr, write: l1_intercepts(
                controls, msr, write=False)):
            Vcpu.wrmsr(self, msr, value)


class RefusedPairStored(Vcpu):
    """A pair for one vCPU that is refused is stored, and takes effect with the next change."""

    def force_spec_ctrl(self, mask, value):
        try:
            Vcpu.force_spec_ctrl(self, mask, value)
        finally:
            self.user_mask, self.user_value = mask, value


class RunsAfterAbort(Vcpu):
    """A VMX abort does not end the vCPU."""

    shut_down = property(lambda self: False, lambda self, on: None)


class RunPendingLeft(Vcpu):
    """An entry of L1 that ends in the reflection of an INIT stays pending."""

    def reflect(self):
        pending = self.nested_run_pending
        try:
            Vcpu.reflect(self)
        finally:
            self.nested_run_pending = pending


class ReportNotRecomputed(Vcpu):
    """A report that userspace restores forces nothing."""

    def write_mitigation_ctrl(self, value, host_initiated):
        if host_initiated and is_subset(value, VALID_MITIGATION_CTRL):
            self.mitigation_ctrl = value
        else:
            Vcpu.write_mitigation_ctrl(self, value, host_initiated)


class InitLeavesShadow(Vcpu):
    """INIT does not reach the SHADOW field."""

    def init_reset(self):
        shadow = self.vmcs.spec_ctrl_shadow
        Vcpu.init_reset(self)
        self.vmcs.spec_ctrl_shadow = shadow


class EdxDropped(Vcpu):
    """WRMSR takes 32 bits."""

    def wrmsr(self, msr, value):
        Vcpu.wrmsr(self, msr, value & 0xFFFFFFFF)


class SetMsrsCountsNothing(Vcpu):
    """KVM_SET_MSRS that stops says that it took none."""

    def set_msrs(self, msrs):
        done = Vcpu.set_msrs(self, msrs)
        return done if done == len(msrs) else 0


class OfferBindsHost(Vcpu):
    """What the guest is not offered, userspace cannot set either."""

    def write_mitigation_ctrl(self, value, host_initiated):
        Vcpu.write_mitigation_ctrl(self, value, host_initiated=False)


class NoGate(Vcpu):
    """Bit 63 of IA32_ARCH_CAPABILITIES is not asked."""

    def shows_enumeration(self):
        return self.cpuid.arch_capabilities


class LoadsBeforeStores(Vcpu):
    """The VM-exit store list comes after the load list."""

    def nested_exit(self, msr_store, msr_load):
        Vcpu.nested_exit(self, (), msr_load)
        return Vcpu.nested_exit(self, msr_store, ())


class InitSurvivesReset(Vcpu):
    """A platform reset leaves an INIT pending."""

    def platform_reset(self):
        pending = self.init_pending
        Vcpu.platform_reset(self)
        self.init_pending = pending


KIT = (RestoreByView, ReadsForWrites, RefusedPairStored, RunsAfterAbort, RunPendingLeft, ReportNotRecomputed,
       InitLeavesShadow, EdxDropped, SetMsrsCountsNothing, OfferBindsHost, NoGate, LoadsBeforeStores, InitSurvivesReset)
