"""The logical processor, as far as IA32_SPEC_CTRL is concerned.

RDMSR and WRMSR of the MSR in VMX root and non-root operation, with and without the control
"virtualize IA32_SPEC_CTRL"; VM entry and VM exit with their MSR areas; the two VMCS fields.
"""

from dataclasses import dataclass

from specctrl.model.outcomes import GP, Fault, VmEntryFailed, VmExit, VmxAbort, VmxInstructionError
from specctrl.model.words import is_subset, merge

CONTROL_FIELD_INVALID = 7
"""VM-instruction error: VM entry with invalid control fields."""
UNSUPPORTED_FIELD = 12
"""VM-instruction error: VMREAD or VMWRITE of a field that this processor does not have."""


@dataclass(slots=True)
class Vmcs:
    """The fields of one VMCS that matter to IA32_SPEC_CTRL, and the bitmap and MSR areas that it points to."""

    virtualize_spec_ctrl: bool = False  # tertiary VM-execution control, bit 7
    spec_ctrl_mask: int = 0  # the guest cannot change these bits; field exists only with the control
    spec_ctrl_shadow: int = 0  # what the guest reads; field exists only with the control
    use_msr_bitmap: bool = True  # without one, every RDMSR and WRMSR exits
    intercept_read: bool = True  # the bitmap's bit for RDMSR of IA32_SPEC_CTRL
    intercept_write: bool = True  # the bitmap's bit for WRMSR of IA32_SPEC_CTRL
    entry_load: bool = False  # IA32_SPEC_CTRL stands in the VM-entry MSR-load area
    entry_load_value: int = 0
    exit_store: bool = False  # IA32_SPEC_CTRL stands in the VM-exit MSR-store area
    exit_store_value: int = 0
    exit_load: bool = False  # IA32_SPEC_CTRL stands in the VM-exit MSR-load area
    exit_load_value: int = 0

    @property
    def write_intercepted(self) -> bool:
        """Whether a guest's WRMSR of the MSR exits under this VMCS."""
        return not self.use_msr_bitmap or self.intercept_write


@dataclass(slots=True)
class LogicalProcessor:
    """One logical processor: the MSR, what it accepts, and whether it is in VMX non-root operation."""

    writable: int  # the bits of IA32_SPEC_CTRL that are not reserved here
    has_spec_ctrl: bool  # whether the MSR exists
    has_control: bool  # whether "virtualize IA32_SPEC_CTRL" may be 1 (MSR 0x492 bit 7)
    spec_ctrl: int = 0  # the register itself
    non_root: bool = False
    entry_loads_shadow: bool = False  # assumption: see the rule processor.entry.no-load

    def accepts(self, value: int) -> bool:
        """Whether a write of ``value`` to the real MSR completes.

        Source: SDM vol. 4, IA32_SPEC_CTRL: a reserved bit, or no such MSR, is #GP.

        >>> processor = LogicalProcessor(writable=0x7, has_spec_ctrl=True, has_control=False)
        >>> processor.accepts(0x5), processor.accepts(0x401)
        (True, False)
        """
        return bool(self.has_spec_ctrl and is_subset(value, self.writable))

    def rdmsr(self) -> int:
        """RDMSR of IA32_SPEC_CTRL in VMX root operation; Fault(#GP) where the MSR does not exist.

        >>> LogicalProcessor(writable=0x7, has_spec_ctrl=True, has_control=False, spec_ctrl=0x1).rdmsr()
        1
        """
        if not self.has_spec_ctrl:
            raise Fault(GP)
        return self.spec_ctrl

    def wrmsr(self, value: int) -> None:
        """WRMSR of IA32_SPEC_CTRL in VMX root operation; Fault(#GP) for a reserved bit or a missing MSR.

        >>> processor = LogicalProcessor(writable=0x7, has_spec_ctrl=True, has_control=False)
        >>> processor.wrmsr(0x4)
        >>> processor.spec_ctrl
        4
        """
        if not self.accepts(value):
            raise Fault(GP)
        self.spec_ctrl = value

    def rdmsr_in_guest(self, vmcs: Vmcs) -> int:
        """RDMSR of IA32_SPEC_CTRL in VMX non-root operation.

        Raises VmExit if the bitmap intercepts it, Fault(#GP) where the MSR does not exist.

        Source: SDM vol. 3, changes to instruction behaviour in VMX non-root operation, RDMSR.

        >>> processor = LogicalProcessor(0x401, True, True, spec_ctrl=0x401)
        >>> vmcs = Vmcs(virtualize_spec_ctrl=True, spec_ctrl_shadow=0x1, intercept_read=False)
        >>> processor.rdmsr_in_guest(vmcs)
        1
        """
        if not vmcs.use_msr_bitmap or vmcs.intercept_read:
            raise VmExit
        if vmcs.virtualize_spec_ctrl:
            return vmcs.spec_ctrl_shadow
        return self.rdmsr()

    def wrmsr_in_guest(self, vmcs: Vmcs, source: int) -> None:
        """WRMSR of IA32_SPEC_CTRL in VMX non-root operation.

        With the control, bits that the mask has stay as they are in the MSR; whether the write
        faults is decided on the value so merged; then the *unmodified* source becomes the shadow.
        Raises VmExit if the bitmap intercepts it, Fault(#GP) if the value to be written is refused.

        Source: SDM vol. 3, changes to instruction behaviour in VMX non-root operation, WRMSR.

        >>> processor = LogicalProcessor(0x401, True, True, spec_ctrl=0x401)
        >>> vmcs = Vmcs(virtualize_spec_ctrl=True, spec_ctrl_mask=0x400, intercept_write=False)
        >>> processor.wrmsr_in_guest(vmcs, 0x0)
        >>> hex(processor.spec_ctrl), hex(vmcs.spec_ctrl_shadow)
        ('0x400', '0x0')
        """
        if vmcs.write_intercepted:
            raise VmExit
        if not vmcs.virtualize_spec_ctrl:
            self.wrmsr(source)
            return
        self.wrmsr(merge(source, vmcs.spec_ctrl_mask, self.spec_ctrl))
        vmcs.spec_ctrl_shadow = source

    def write_mask(self, vmcs: Vmcs, value: int) -> None:
        """VMWRITE of IA32_SPEC_CTRL_MASK (0x204A); VmxInstructionError(12) without the control.

        Source: SDM vol. 3, appendix B, note on fields that exist only with a control.

        >>> LogicalProcessor(0x7, True, has_control=False).write_mask(Vmcs(), 0x400)
        Traceback (most recent call last):
        ...
        specctrl.model.outcomes.VmxInstructionError: 12
        """
        if not self.has_control:
            raise VmxInstructionError(UNSUPPORTED_FIELD)
        vmcs.spec_ctrl_mask = value

    def write_shadow(self, vmcs: Vmcs, value: int) -> None:
        """VMWRITE of IA32_SPEC_CTRL_SHADOW (0x204C); VmxInstructionError(12) without the control."""
        if not self.has_control:
            raise VmxInstructionError(UNSUPPORTED_FIELD)
        vmcs.spec_ctrl_shadow = value

    def read_shadow(self, vmcs: Vmcs) -> int:
        """VMREAD of IA32_SPEC_CTRL_SHADOW (0x204C); VmxInstructionError(12) without the control."""
        if not self.has_control:
            raise VmxInstructionError(UNSUPPORTED_FIELD)
        return vmcs.spec_ctrl_shadow

    def vm_entry(self, vmcs: Vmcs) -> None:
        """VM entry.  It does not touch the MSR, unless the hypervisor put it in the VM-entry MSR-load area.

        Raises VmxInstructionError(7) for a control that this processor lacks, VmEntryFailed if the
        area holds a value that the MSR refuses; the processor is in root operation then.

        Source: SDM vol. 3, VM entries, loading MSRs; Chao Gao, 13 September 2024 (ZuPNmOLJPJsPlufA@intel.com).

        >>> processor = LogicalProcessor(0x401, True, True, spec_ctrl=0x1)
        >>> processor.vm_entry(Vmcs(virtualize_spec_ctrl=True, spec_ctrl_mask=0x400, spec_ctrl_shadow=0x0))
        >>> processor.spec_ctrl
        1
        """
        if vmcs.virtualize_spec_ctrl and not self.has_control:
            raise VmxInstructionError(CONTROL_FIELD_INVALID)
        if vmcs.entry_load:
            if not self.accepts(vmcs.entry_load_value):
                raise VmEntryFailed
            self.spec_ctrl = vmcs.entry_load_value
        if self.entry_loads_shadow and vmcs.virtualize_spec_ctrl:
            self.wrmsr(merge(vmcs.spec_ctrl_shadow, vmcs.spec_ctrl_mask, self.spec_ctrl))
        self.non_root = True

    def vm_exit(self, vmcs: Vmcs) -> None:
        """VM exit.  The MSR stays as the guest left it, unless it stands in a VM-exit MSR area.

        The areas act on the real MSR: the store area receives it, not the shadow.
        Raises VmxAbort if the load area holds a value that the MSR refuses.

        Source: SDM vol. 3, VM exits, saving and loading MSRs.

        >>> processor = LogicalProcessor(0x401, True, True, spec_ctrl=0x401, non_root=True)
        >>> vmcs = Vmcs(virtualize_spec_ctrl=True, spec_ctrl_shadow=0x1, exit_store=True)
        >>> processor.vm_exit(vmcs)
        >>> hex(vmcs.exit_store_value)
        '0x401'
        """
        self.non_root = False
        if vmcs.exit_store:
            vmcs.exit_store_value = self.spec_ctrl
        if vmcs.exit_load:
            if not self.accepts(vmcs.exit_load_value):
                raise VmxAbort
            self.spec_ctrl = vmcs.exit_load_value
