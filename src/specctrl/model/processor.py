"""The logical processor, as far as IA32_SPEC_CTRL is concerned.

RDMSR and WRMSR of the MSR in VMX root and non-root operation, with and without the control
"virtualize IA32_SPEC_CTRL"; VM entry and VM exit with their MSR areas, and with the two controls that are both
called "load IA32_SPEC_CTRL"; the VMCS fields.
"""

from dataclasses import dataclass

from specctrl.model.outcomes import GP, Fault, Misuse, VmEntryFailed, VmExit, VmxAbort, VmxInstructionError
from specctrl.model.words import is_subset, merge

CONTROL_FIELD_INVALID = 7
"""VM-instruction error: VM entry with invalid control fields."""
HOST_FIELD_INVALID = 8
"""VM-instruction error: VM entry with invalid host-state fields."""
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
    load_on_entry: bool = False  # VM-entry control, bit 24: "load IA32_SPEC_CTRL"
    guest_spec_ctrl: int = 0  # guest-state field; exists only where the VM-entry control may be 1
    load_on_exit: bool = False  # secondary VM-exit control, bit 2: "load IA32_SPEC_CTRL"
    host_spec_ctrl: int = 0  # host-state field; exists only where the VM-exit control may be 1

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
    has_entry_load: bool = False  # whether the VM-entry control "load IA32_SPEC_CTRL" may be 1
    has_exit_load: bool = False  # whether the VM-exit control "load IA32_SPEC_CTRL" may be 1
    spec_ctrl: int = 0  # the register itself
    non_root: bool = False
    entry_loads_shadow: bool = False  # a reading of Xen's, against the SDM: see the rule processor.entry.no-load

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

    def write_guest_field(self, vmcs: Vmcs, value: int) -> None:
        """VMWRITE of guest IA32_SPEC_CTRL; VmxInstructionError(12) without the VM-entry control that loads it."""
        if not self.has_entry_load:
            raise VmxInstructionError(UNSUPPORTED_FIELD)
        vmcs.guest_spec_ctrl = value

    def write_host_field(self, vmcs: Vmcs, value: int) -> None:
        """VMWRITE of host IA32_SPEC_CTRL; VmxInstructionError(12) without the VM-exit control that loads it."""
        if not self.has_exit_load:
            raise VmxInstructionError(UNSUPPORTED_FIELD)
        vmcs.host_spec_ctrl = value

    def undefined(self) -> int:
        """A value that the SDM leaves undefined: Misuse, since no example may rest on it.

        The proofs put any 64-bit value here, so that no claim rests on one either.
        """
        raise Misuse("the SDM leaves this value of IA32_SPEC_CTRL undefined")

    def vm_entry(self, vmcs: Vmcs) -> None:
        """VM entry.  It loads the MSR from the guest-state field if that control is 1, never from SHADOW.

        Then the VM-entry MSR-load area is processed; under "virtualize IA32_SPEC_CTRL" what it loads is undefined.
        Raises VmxInstructionError(7) for a control that this processor lacks, (8) for a host-state field that the MSR
        refuses; VmEntryFailed for a guest-state field or an entry of the area that it refuses: the host's state is
        loaded then, as at a VM exit, and processing of the VM-exit MSR-load area may raise VmxAbort.

        Source: SDM vol. 3, VM entries: checks on controls, host-state and guest-state area; loading guest state;
        loading MSRs; VM-entry failures during or after loading guest state (29.2, 29.3.1.1, 29.3.2.1, 29.4, 29.8).

        >>> processor = LogicalProcessor(0x401, True, True, spec_ctrl=0x1)
        >>> processor.vm_entry(Vmcs(virtualize_spec_ctrl=True, spec_ctrl_mask=0x400, spec_ctrl_shadow=0x0))
        >>> processor.spec_ctrl
        1
        """
        if vmcs.virtualize_spec_ctrl and not self.has_control:
            raise VmxInstructionError(CONTROL_FIELD_INVALID)
        if vmcs.load_on_entry and not self.has_entry_load:
            raise VmxInstructionError(CONTROL_FIELD_INVALID)
        if vmcs.load_on_exit and not self.has_exit_load:
            raise VmxInstructionError(CONTROL_FIELD_INVALID)
        if vmcs.load_on_exit and not self.accepts(vmcs.host_spec_ctrl):
            raise VmxInstructionError(HOST_FIELD_INVALID)
        if vmcs.load_on_entry:
            if not self.accepts(vmcs.guest_spec_ctrl):
                self.load_host_state(vmcs)
                raise VmEntryFailed
            self.spec_ctrl = vmcs.guest_spec_ctrl
        if vmcs.entry_load:
            if not self.accepts(vmcs.entry_load_value):
                self.load_host_state(vmcs)
                raise VmEntryFailed
            self.spec_ctrl = self.undefined() if vmcs.virtualize_spec_ctrl else vmcs.entry_load_value
        if self.entry_loads_shadow and vmcs.virtualize_spec_ctrl:
            self.wrmsr(merge(vmcs.spec_ctrl_shadow, vmcs.spec_ctrl_mask, self.spec_ctrl))
        self.non_root = True

    def vm_exit(self, vmcs: Vmcs) -> None:
        """VM exit.  The MSR is saved in the guest-state field wherever the VM-entry control could load it from there.

        Then come the VM-exit MSR-store area, what it stores under "virtualize IA32_SPEC_CTRL" being undefined, and the
        host's state.  The MSR stays as the guest left it if nothing of that loads it.
        Raises VmxAbort for an entry of either area that the MSR refuses.

        Source: SDM vol. 3, VM exits: saving guest state; saving MSRs; loading host state; loading MSRs
        (30.3.1, 30.4, 30.5.1, 30.6).

        >>> processor = LogicalProcessor(0x401, True, True, has_entry_load=True, spec_ctrl=0x401, non_root=True)
        >>> vmcs = Vmcs(virtualize_spec_ctrl=True, spec_ctrl_shadow=0x1)
        >>> processor.vm_exit(vmcs)
        >>> hex(vmcs.guest_spec_ctrl)
        '0x401'
        """
        if self.has_entry_load:
            vmcs.guest_spec_ctrl = self.spec_ctrl
        if vmcs.exit_store:
            if not self.has_spec_ctrl:
                self.non_root = False
                raise VmxAbort
            vmcs.exit_store_value = self.undefined() if vmcs.virtualize_spec_ctrl else self.spec_ctrl
        self.load_host_state(vmcs)

    def load_host_state(self, vmcs: Vmcs) -> None:
        """The host runs: its field of the MSR if that control is 1, then the VM-exit MSR-load area.

        Part of a VM exit, and of a VM entry that fails late.  Raises VmxAbort if the area holds a value that the MSR
        refuses; the host-state field was checked at VM entry.

        Source: SDM vol. 3, loading host state; loading MSRs (30.5.1, 30.6).
        """
        self.non_root = False
        if vmcs.load_on_exit:
            self.spec_ctrl = vmcs.host_spec_ctrl
        if vmcs.exit_load:
            if not self.accepts(vmcs.exit_load_value):
                raise VmxAbort
            self.spec_ctrl = vmcs.exit_load_value
