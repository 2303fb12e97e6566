"""Faults, planted in Bochs' processor: alone, and under the modelled KVM."""

from specctrl.model.outcomes import GP, Fault, VmEntryFailed, VmExit, VmxInstructionError
from specctrl.model.processor import HOST_FIELD_INVALID, Vmcs
from specctrl.model.words import is_subset, merge
from specctrl.targets.bochs.deviations import WRITABLE
from specctrl.targets.bochs.models import WITH_CONTROL, WITHOUT_CONTROL
from specctrl.targets.bochs.processor import BochsProcessor
from specctrl.targets.bochs.target import HostProcessor


class FaultsOnSource(BochsProcessor):
    def wrmsr_in_guest(self, vmcs: Vmcs, source: int) -> None:
        if not vmcs.write_intercepted and source & ~WRITABLE:
            raise Fault(GP)
        super().wrmsr_in_guest(vmcs, source)


class IgnoresMask(BochsProcessor):
    def wrmsr_in_guest(self, vmcs: Vmcs, source: int) -> None:
        super().wrmsr_in_guest(vmcs, source)
        if vmcs.virtualize_spec_ctrl and is_subset(source, WRITABLE):
            self.wrmsr(source)


class ShadowIsMerged(BochsProcessor):
    def wrmsr_in_guest(self, vmcs: Vmcs, source: int) -> None:
        super().wrmsr_in_guest(vmcs, source)
        if vmcs.virtualize_spec_ctrl:
            self.write_shadow(vmcs, self.spec_ctrl)


class ReadsTheMsr(BochsProcessor):
    def rdmsr_in_guest(self, vmcs: Vmcs) -> int:
        super().rdmsr_in_guest(vmcs)
        return self.spec_ctrl


class FaultsBeforeExit(BochsProcessor):
    def wrmsr_in_guest(self, vmcs: Vmcs, source: int) -> None:
        try:
            super().wrmsr_in_guest(vmcs, source)
        except VmExit:
            if is_subset(source, WRITABLE):
                raise
            raise Fault(GP) from None


class ReadsShadowAlways(BochsProcessor):
    def rdmsr_in_guest(self, vmcs: Vmcs) -> int:
        value = super().rdmsr_in_guest(vmcs)
        return self.read_shadow(vmcs) if self.has_control else value


class EntryLoadsShadow(BochsProcessor):
    def vm_entry(self, vmcs: Vmcs) -> None:
        super().vm_entry(vmcs)
        if vmcs.virtualize_spec_ctrl:
            merged = merge(vmcs.spec_ctrl_shadow, vmcs.spec_ctrl_mask, self.spec_ctrl)
            if is_subset(merged, WRITABLE):
                self.wrmsr(merged)


class RootWritesShadow(BochsProcessor):
    """Root operation writes the VMCS that was written last."""

    last: Vmcs | None = None

    def write_shadow(self, vmcs: Vmcs, value: int) -> None:
        self.last = vmcs
        super().write_shadow(vmcs, value)

    def wrmsr(self, value: int) -> None:
        super().wrmsr(value)
        if self.last is not None:
            super().write_shadow(self.last, value)


class FieldsWithoutControl(BochsProcessor):
    def read_shadow(self, vmcs: Vmcs) -> int:
        return super().read_shadow(vmcs) if self.has_control else 0


class EntryUnchecked(BochsProcessor):
    def vm_entry(self, vmcs: Vmcs) -> None:
        if vmcs.virtualize_spec_ctrl and not self.has_control:
            vmcs.virtualize_spec_ctrl = False
        super().vm_entry(vmcs)


class ExitLoadsMasked(BochsProcessor):
    def vm_exit(self, vmcs: Vmcs) -> None:
        super().vm_exit(vmcs)
        if vmcs.exit_load:
            self.wrmsr(vmcs.exit_load_value & ~0x400)


class EntryLoadIgnored(BochsProcessor):
    def vm_entry(self, vmcs: Vmcs) -> None:
        before = self.spec_ctrl
        try:
            super().vm_entry(vmcs)
        except VmEntryFailed:
            return
        if vmcs.entry_load:
            self.wrmsr(before)


class HostFieldStays(BochsProcessor):
    def vm_exit(self, vmcs: Vmcs) -> None:
        loads, vmcs.load_on_exit = vmcs.load_on_exit, False
        super().vm_exit(vmcs)
        vmcs.load_on_exit = loads


class HostFieldUnchecked(BochsProcessor):
    def vm_entry(self, vmcs: Vmcs) -> None:
        try:
            super().vm_entry(vmcs)
        except VmxInstructionError as error:
            if error.number != HOST_FIELD_INVALID:
                raise
            vmcs.load_on_exit = False
            super().vm_entry(vmcs)


class FailedEntryKeepsTheMsr(BochsProcessor):
    def vm_entry(self, vmcs: Vmcs) -> None:
        before = self.spec_ctrl
        try:
            super().vm_entry(vmcs)
        except VmEntryFailed:
            self.spec_ctrl = before
            raise


PLANTED = {
    (HostFieldStays, "processor.load.exit", WITH_CONTROL),
    (HostFieldUnchecked, "processor.load.checked", WITH_CONTROL),
    (FailedEntryKeepsTheMsr, "processor.load.checked", WITH_CONTROL),
    (RootWritesShadow, "processor.root.real-msr", WITH_CONTROL),
    (FieldsWithoutControl, "processor.fields.need-control", WITHOUT_CONTROL),
    (EntryUnchecked, "processor.entry.control-checked", WITHOUT_CONTROL),
    (FaultsBeforeExit, "processor.intercept.first", WITH_CONTROL),
    (ReadsShadowAlways, "processor.without-control.plain", WITH_CONTROL),
    (ReadsTheMsr, "processor.rdmsr.shadow", WITH_CONTROL),
    (IgnoresMask, "processor.wrmsr.masked-kept", WITH_CONTROL),
    (FaultsOnSource, "processor.wrmsr.fault-on-merged", WITH_CONTROL),
    (ShadowIsMerged, "processor.wrmsr.shadow-unmodified", WITH_CONTROL),
    (ExitLoadsMasked, "processor.areas.real-msr+2", WITH_CONTROL),
    (EntryLoadIgnored, "processor.areas.not-listed", WITHOUT_CONTROL),
    (EntryLoadsShadow, "processor.entry.no-load", WITH_CONTROL),
}
"""A fault, the rule that it breaks, and the model that it is planted in."""
IN_SEQUENCES = [FaultsOnSource, IgnoresMask, ShadowIsMerged, ReadsTheMsr, FaultsBeforeExit, ReadsShadowAlways,
                EntryLoadsShadow, RootWritesShadow, ExitLoadsMasked, HostFieldStays]


# ---- the modelled KVM on it

class KvmFaultsOnSource(HostProcessor, FaultsOnSource):
    pass


class KvmIgnoresMask(HostProcessor, IgnoresMask):
    pass


class KvmShadowIsMerged(HostProcessor):
    def complete_shadow(self, vmcs: Vmcs, source: int, before: int) -> None:
        super().complete_shadow(vmcs, source, before)
        self.write_shadow(vmcs, self.spec_ctrl)


class KvmReadsTheMsr(HostProcessor, ReadsTheMsr):
    pass


class KvmEntryForgets(HostProcessor):
    def vm_entry(self, vmcs: Vmcs) -> None:
        super().vm_entry(vmcs)
        self.wrmsr(0)


class KvmWriteIsNotIntercepted(HostProcessor):
    def wrmsr_in_guest(self, vmcs: Vmcs, source: int) -> None:
        before, vmcs.use_msr_bitmap, vmcs.intercept_write = (vmcs.use_msr_bitmap, vmcs.intercept_write), True, False
        try:
            super().wrmsr_in_guest(vmcs, source)
        finally:
            vmcs.use_msr_bitmap, vmcs.intercept_write = before


class KvmShadowIsNotCompleted(HostProcessor):
    def complete_shadow(self, vmcs: Vmcs, source: int, before: int) -> None:
        pass


KVM_FAULTS = [KvmFaultsOnSource, KvmIgnoresMask, KvmShadowIsMerged, KvmReadsTheMsr, KvmEntryForgets,
              KvmWriteIsNotIntercepted, KvmShadowIsNotCompleted]
