"""What is asked of a processor, of this specification's and of Bochs' alike, and what each shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from specctrl.model.outcomes import Fault, VmEntryFailed, VmExit, VmxAbort, VmxInstructionError
from specctrl.model.processor import LogicalProcessor, Vmcs

Shown = int | str | None
"""A value, the name of an outcome, or nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: an access, a VMREAD or VMWRITE, a stay in the guest, or "controls", which sets VMCS fields."""

    does: str
    value: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """How a step ended, and what can be looked at after it."""

    outcome: Shown
    msr: Shown
    mask: Shown
    shadow: Shown
    stored: Shown


def perform(processor: LogicalProcessor, vmcs: Vmcs, step: Step) -> Seen:
    """Perform a step, and look.

    >>> perform(LogicalProcessor(0x7, True, True), Vmcs(), Step("wrmsr", 0x4))
    Seen(outcome=None, msr=4, mask=0, shadow=0, stored=None)
    """
    outcome = ended(do, processor, vmcs, step)
    return Seen(
        outcome=outcome,
        msr=ended(processor.rdmsr),
        mask=vmcs.spec_ctrl_mask if processor.has_control else None,
        shadow=ended(processor.read_shadow, vmcs),
        stored=vmcs.exit_store_value if vmcs.exit_store else None,
    )


def ended(operation: Any, *arguments: Any) -> Shown:
    """What an operation returns, or the name of its outcome.

    >>> ended(LogicalProcessor(0, False, False).rdmsr)
    '#GP'
    """
    try:
        shown: Shown = operation(*arguments)
    except Fault:
        return "#GP"
    except VmExit:
        return "VM exit"
    except VmxInstructionError as error:
        return f"VM-instruction error {error.number}"
    except VmEntryFailed:
        return "VM entry failed"
    except VmxAbort:
        return "VMX abort"
    return shown


def do(processor: LogicalProcessor, vmcs: Vmcs, step: Step) -> Shown:
    """Perform a step; what it returns, its outcome being raised."""
    match step.does:
        case "rdmsr":
            return processor.rdmsr()
        case "wrmsr":
            processor.wrmsr(step.value)
        case "write mask":
            processor.write_mask(vmcs, step.value)
        case "write shadow":
            processor.write_shadow(vmcs, step.value)
        case "write host":
            processor.write_host_field(vmcs, step.value)
        case "read shadow":
            return processor.read_shadow(vmcs)
        case "controls":
            for name, value in step.fields.items():
                setattr(vmcs, name, value)
        case _:
            return _in_guest(processor, vmcs, step)
    return None


def _in_guest(processor: LogicalProcessor, vmcs: Vmcs, step: Step) -> Shown:
    processor.vm_entry(vmcs)
    try:
        if step.does == "guest rdmsr":
            return processor.rdmsr_in_guest(vmcs)
        if step.does == "guest wrmsr":
            processor.wrmsr_in_guest(vmcs, step.value)
        elif step.does != "guest runs":
            raise ValueError(f"no step is {step.does!r}")
    finally:
        processor.vm_exit(vmcs)
    return None
