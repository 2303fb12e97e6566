"""Theorems about the logical processor: each access and each VM entry and exit, from every state of it."""

from copy import copy
from typing import Any

from specctrl.model.kvm.variant import Variant
from specctrl.model.outcomes import Fault, VmEntryFailed, VmExit, VmxAbort, VmxInstructionError
from specctrl.model.processor import CONTROL_FIELD_INVALID, UNSUPPORTED_FIELD, LogicalProcessor, Vmcs
from specctrl.proof.any_vcpu import Symbols, same, subset
from specctrl.proof.symbolic import flag_term
from specctrl.proof.terms import all_of, any_of, implies, not_, when
from specctrl.proof.theorems.statement import (
    Parts,
    any_bit,
    attempt,
    ends,
    iff,
    merged_outside,
    outside,
    taken_from,
    theorem,
    truth,
    unchanged,
)


def any_processor(machine: Variant, values: Symbols) -> LogicalProcessor:
    """A processor with every field from ``values``, and VM entry as the default of the assumption has it."""
    return machine.processor(
        writable=values.word("writable"),
        has_spec_ctrl=values.flag("has_spec_ctrl"),
        has_control=values.flag("has_control"),
        spec_ctrl=values.word("register"),
        non_root=values.flag("non_root"),
    )


def any_vmcs(machine: Variant, values: Symbols) -> Vmcs:
    """A VMCS with every field from ``values``."""
    words = ("spec_ctrl_mask", "spec_ctrl_shadow", "entry_load_value", "exit_store_value", "exit_load_value")
    flags = ("virtualize_spec_ctrl", "use_msr_bitmap", "intercept_read", "intercept_write", "entry_load", "exit_store",
             "exit_load")
    return machine.vmcs(**{name: values.word(f"vmcs.{name}") for name in words},
                        **{name: values.flag(f"vmcs.{name}") for name in flags})


def both(machine: Variant, values: Symbols) -> tuple[Any, Vmcs, Any, Vmcs]:
    """Any processor and any VMCS, and what they are before the operation."""
    cpu, vmcs = any_processor(machine, values), any_vmcs(machine, values)
    return cpu, vmcs, copy(cpu), copy(vmcs)


@theorem
def root_accesses_are_plain(machine: Variant, values: Symbols) -> Parts:
    """In root operation RDMSR returns the register and WRMSR writes it; both fault where there is no MSR, WRMSR also
    for an operand with a reserved bit, and what faults changes nothing."""
    cpu, before, value = any_processor(machine, values), any_processor(machine, values), values.word("written")
    seen = attempt(cpu.rdmsr)
    yield "RDMSR faults", iff(ends(seen, Fault), not_(flag_term(cpu.has_spec_ctrl)))
    yield "RDMSR changes nothing", unchanged(cpu, before)
    if not isinstance(seen, Fault):
        yield "RDMSR returns", same(seen, before.spec_ctrl)
    seen = attempt(lambda: cpu.wrmsr(value))
    refused = any_of(not_(flag_term(cpu.has_spec_ctrl)), outside(value, cpu.writable))
    yield "WRMSR faults", iff(ends(seen, Fault), refused)
    yield "the register", same(cpu.spec_ctrl, before.spec_ctrl if ends(seen, Fault) else value)
    yield "nothing else", unchanged(cpu, before, "spec_ctrl")


@theorem
def fields_need_the_control(machine: Variant, values: Symbols) -> Parts:
    """VMREAD and VMWRITE of MASK and SHADOW fail with VM-instruction error 12, and change nothing, exactly on a
    processor without the control; elsewhere each reads or writes its own field and no other."""
    cpu, vmcs, _, before = both(machine, values)
    value = values.word("written")
    no_control = not_(flag_term(cpu.has_control))
    for name, field, operation in (
        ("MASK", "spec_ctrl_mask", lambda: cpu.write_mask(vmcs, value)),
        ("SHADOW", "spec_ctrl_shadow", lambda: cpu.write_shadow(vmcs, value)),
    ):
        seen = attempt(operation)
        yield f"VMWRITE of {name} fails", iff(ends(seen, VmxInstructionError, UNSUPPORTED_FIELD), no_control)
        yield f"VMWRITE of {name}", same(
            getattr(vmcs, field), value if seen is None else getattr(before, field))
    yield "no other field", unchanged(vmcs, before, "spec_ctrl_mask", "spec_ctrl_shadow")
    seen = attempt(lambda: cpu.read_shadow(before))
    yield "VMREAD of SHADOW fails", iff(ends(seen, VmxInstructionError, UNSUPPORTED_FIELD), no_control)
    if not isinstance(seen, VmxInstructionError):
        yield "VMREAD of SHADOW", same(seen, before.spec_ctrl_shadow)


@theorem
def entry_checks_the_control(machine: Variant, values: Symbols) -> Parts:
    """VM entry fails with VM-instruction error 7, before it loads anything, exactly if the control is 1 on a processor
    that does not support it."""
    cpu, vmcs, before, _ = both(machine, values)
    seen = attempt(lambda: cpu.vm_entry(vmcs))
    missing = all_of(flag_term(vmcs.virtualize_spec_ctrl), not_(flag_term(before.has_control)))
    yield "it fails", iff(ends(seen, VmxInstructionError, CONTROL_FIELD_INVALID), missing)
    if isinstance(seen, VmxInstructionError):
        yield "nothing is loaded", unchanged(cpu, before)
    elif seen is None:
        yield "the guest runs", flag_term(cpu.non_root)


@theorem
def entry_loads_no_shadow(machine: Variant, values: Symbols) -> Parts:
    """A VM entry whose MSR-load area lacks the MSR leaves the register as it is, whatever MASK and SHADOW hold."""
    cpu, vmcs, before, given = both(machine, values)
    vmcs.entry_load = False
    attempt(lambda: cpu.vm_entry(vmcs))
    yield "the register", same(cpu.spec_ctrl, before.spec_ctrl)
    yield "the VMCS", unchanged(vmcs, given, "entry_load")


@theorem
def areas_act_on_the_register(machine: Variant, values: Symbols) -> Parts:
    """The VM-entry MSR-load area and the VM-exit MSR-load area write the register, the VM-exit MSR-store area receives
    it, and MASK and SHADOW stay; a value that the MSR refuses fails the entry, or aborts the exit, with the register as
    it was."""
    cpu, vmcs, before, given = both(machine, values)
    vmcs.entry_load, cpu.has_control = True, True
    refused = any_of(not_(flag_term(cpu.has_spec_ctrl)), outside(vmcs.entry_load_value, cpu.writable))
    seen = attempt(lambda: cpu.vm_entry(vmcs))
    yield "entry: refused", iff(ends(seen, VmEntryFailed), refused)
    yield "entry: register", same(cpu.spec_ctrl, vmcs.entry_load_value if seen is None else before.spec_ctrl)
    yield "entry: the VMCS", unchanged(vmcs, given, "entry_load")

    cpu, vmcs, before, given = both(machine, values)
    seen = attempt(lambda: cpu.vm_exit(vmcs))
    refused = any_of(not_(flag_term(cpu.has_spec_ctrl)), outside(vmcs.exit_load_value, cpu.writable))
    loads, stores = flag_term(given.exit_load), flag_term(given.exit_store)
    yield "exit: refused", iff(ends(seen, VmxAbort), all_of(loads, refused))
    written = all_of(loads, truth(seen is None))
    yield "exit: register", when(
        written, same(cpu.spec_ctrl, given.exit_load_value), same(cpu.spec_ctrl, before.spec_ctrl))
    yield "exit: stored", when(
        stores, same(vmcs.exit_store_value, before.spec_ctrl), same(vmcs.exit_store_value, given.exit_store_value))
    yield "exit: the VMCS", unchanged(vmcs, given, "exit_store_value")
    yield "exit: the host runs", not_(flag_term(cpu.non_root))


@theorem
def interception_comes_first(machine: Variant, values: Symbols) -> Parts:
    """RDMSR and WRMSR in non-root operation cause a VM exit, with nothing changed, exactly if there is no bitmap or
    its bit for that direction is 1: whatever control, value and processor are."""
    for name, intercepted in (("RDMSR", "intercept_read"), ("WRMSR", "intercept_write")):
        cpu, vmcs, before, given = both(machine, values)
        write = name == "WRMSR"
        value = values.word("written")
        seen = attempt(lambda: cpu.wrmsr_in_guest(vmcs, value) if write else cpu.rdmsr_in_guest(vmcs))  # noqa: B023
        exits = any_of(not_(flag_term(given.use_msr_bitmap)), flag_term(getattr(given, intercepted)))
        yield f"{name} exits", iff(ends(seen, VmExit), exits)
        if ends(seen, VmExit) or not write:
            yield f"{name} changes nothing", all_of(unchanged(cpu, before), unchanged(vmcs, given))


def direct(machine: Variant, values: Symbols, control: bool) -> tuple[Any, Vmcs, Any, Vmcs]:
    """Any processor and VMCS with the control at 1 or 0 and no interception, and what they are before."""
    cpu, vmcs, before, given = both(machine, values)
    for one in (vmcs, given):
        one.use_msr_bitmap, one.intercept_read, one.intercept_write = True, False, False
        one.virtualize_spec_ctrl = control
    return cpu, vmcs, before, given


@theorem
def without_the_control_accesses_are_plain(machine: Variant, values: Symbols) -> Parts:
    """With the control at 0 an access that is not intercepted ends, and leaves the register, as in root operation, and
    touches no field of the VMCS."""
    cpu, vmcs, before, given = direct(machine, values, control=False)
    value = values.word("written")
    seen, expected = attempt(lambda: cpu.rdmsr_in_guest(vmcs)), attempt(before.rdmsr)
    yield "RDMSR faults", truth(isinstance(seen, Fault) == isinstance(expected, Fault))
    if not isinstance(seen, Fault):
        yield "RDMSR", same(seen, expected)
    seen, expected = attempt(lambda: cpu.wrmsr_in_guest(vmcs, value)), attempt(lambda: before.wrmsr(value))
    yield "WRMSR faults", truth(isinstance(seen, Fault) == isinstance(expected, Fault))
    yield "WRMSR", unchanged(cpu, before)
    yield "the VMCS", unchanged(vmcs, given)


@theorem
def with_the_control_rdmsr_returns_shadow(machine: Variant, values: Symbols) -> Parts:
    """With the control at 1 an RDMSR that is not intercepted returns SHADOW and changes nothing."""
    cpu, vmcs, before, given = direct(machine, values, control=True)
    seen = attempt(lambda: cpu.rdmsr_in_guest(vmcs))
    yield "what is returned", same(seen, given.spec_ctrl_shadow)
    yield "nothing else", all_of(unchanged(cpu, before), unchanged(vmcs, given))


@theorem
def with_the_control_wrmsr_merges(machine: Variant, values: Symbols) -> Parts:
    """With the control at 1 a WRMSR that is not intercepted keeps each bit of the register that MASK has, takes each
    other from the operand, and puts the operand as it is into SHADOW; it faults, and changes nothing, exactly if there
    is no MSR or the result has a reserved bit."""
    cpu, vmcs, before, given = direct(machine, values, control=True)
    value, bit = values.word("written"), any_bit(values)
    seen = attempt(lambda: cpu.wrmsr_in_guest(vmcs, value))
    reserved = merged_outside(value, given.spec_ctrl_mask, before.spec_ctrl, before.writable)
    yield "it faults", iff(ends(seen, Fault), any_of(not_(flag_term(before.has_spec_ctrl)), reserved))
    if isinstance(seen, Fault):
        yield "what faults changes nothing", all_of(unchanged(cpu, before), unchanged(vmcs, given))
    else:
        yield "each bit", taken_from(bit, cpu.spec_ctrl, value, given.spec_ctrl_mask, before.spec_ctrl)
        yield "SHADOW", same(vmcs.spec_ctrl_shadow, value)
        yield "no other field", all_of(
            unchanged(cpu, before, "spec_ctrl"), unchanged(vmcs, given, "spec_ctrl_shadow"))
        yield "no reserved bit", implies(
            subset(before.spec_ctrl, before.writable), subset(cpu.spec_ctrl, before.writable))
