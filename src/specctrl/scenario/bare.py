"""A stay in a guest on a bare processor: VM entry, at most one WRMSR and one RDMSR of IA32_SPEC_CTRL, VM exit.

No KVM is between: the step gives the VMCS, whose bitmap intercepts nothing.
"""

from dataclasses import dataclass

from specctrl.model.outcomes import Fault, VmEntryFailed, VmxAbort, VmxInstructionError
from specctrl.model.processor import LogicalProcessor, Vmcs
from specctrl.scenario.observation import VECTORS, Hex, Observation


@dataclass(frozen=True, slots=True)
class Stay:
    """What is written to fields that exist only with a control (None: nothing is), and what the guest executes."""

    mask: int | None
    shadow: int | None
    guest_field: int | None
    host_field: int | None
    write: int | None
    read: bool


def perform(processor: LogicalProcessor, vmcs: Vmcs, stay: Stay) -> Observation:
    """Perform it, and look at the processor and the fields afterwards; after a VMX abort there is nothing to look at.

    >>> stay = Stay(mask=0x400, shadow=0x0, guest_field=None, host_field=None, write=0x4, read=False)
    >>> vmcs = Vmcs(virtualize_spec_ctrl=True, intercept_write=False)
    >>> perform(LogicalProcessor(0x405, True, True, spec_ctrl=0x401), vmcs, stay)["effective"]
    0x404
    """
    seen = Observation()
    fields = ((processor.write_mask, stay.mask), (processor.write_shadow, stay.shadow),
              (processor.write_guest_field, stay.guest_field), (processor.write_host_field, stay.host_field))
    try:
        for vmwrite, value in fields:
            if value is not None:
                vmwrite(vmcs, value)
        processor.vm_entry(vmcs)
        try:
            if stay.write is not None:
                processor.wrmsr_in_guest(vmcs, stay.write)
            if stay.read:
                seen["value"] = Hex(processor.rdmsr_in_guest(vmcs))
        except Fault as fault:
            seen["fault"] = VECTORS[fault.vector]
        seen["effective"] = Hex(processor.spec_ctrl)
        processor.vm_exit(vmcs)
    except VmxInstructionError as error:
        seen["vm_error"] = error.number
    except VmEntryFailed:
        seen["entry_failed"] = True
    except VmxAbort:
        return Observation(abort=True)
    seen["host_spec_ctrl"] = Hex(processor.spec_ctrl)
    seen["shadow"] = shadow_of(processor, vmcs)
    seen["guest_field"] = Hex(vmcs.guest_spec_ctrl) if processor.has_entry_load else None
    if vmcs.exit_store and "effective" in seen:
        seen["stored"] = [Hex(vmcs.exit_store_value)]
    return seen


def shadow_of(processor: LogicalProcessor, vmcs: Vmcs) -> Hex | None:
    """VMREAD of IA32_SPEC_CTRL_SHADOW; None where that fails, for want of the field."""
    try:
        return Hex(processor.read_shadow(vmcs))
    except VmxInstructionError:
        return None
