"""Theorems about the logical processor: each access and each VM entry and exit, from every state of it."""

from copy import copy
from typing import Any, cast

from specctrl.model.kvm.variant import Variant
from specctrl.model.outcomes import Fault, VmEntryFailed, VmExit, VmxAbort, VmxInstructionError
from specctrl.model.processor import (
    CONTROL_FIELD_INVALID,
    HOST_FIELD_INVALID,
    UNSUPPORTED_FIELD,
    LogicalProcessor,
    Vmcs,
)
from specctrl.model.words import merge
from specctrl.proof.any_vcpu import Symbols, same, subset
from specctrl.proof.symbolic import flag_term
from specctrl.proof.terms import Term, all_of, any_of, implies, not_, when
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
    """A processor with every field from ``values``, and VM entry as the default of the assumption has it.

    What the SDM leaves undefined is any value.
    """
    anything = values.word("undefined")
    kind = type("AnyProcessor", (machine.processor,), {"__slots__": (), "undefined": lambda _: anything})
    return cast(LogicalProcessor, kind(
        writable=values.word("writable"),
        has_spec_ctrl=values.flag("has_spec_ctrl"),
        has_control=values.flag("has_control"),
        has_entry_load=values.flag("has_entry_load"),
        has_exit_load=values.flag("has_exit_load"),
        spec_ctrl=values.word("register"),
        non_root=values.flag("non_root"),
    ))


def any_vmcs(machine: Variant, values: Symbols) -> Vmcs:
    """A VMCS with every field from ``values``."""
    words = ("spec_ctrl_mask", "spec_ctrl_shadow", "entry_load_value", "exit_store_value", "exit_load_value",
             "guest_spec_ctrl", "host_spec_ctrl")
    flags = ("virtualize_spec_ctrl", "use_msr_bitmap", "intercept_read", "intercept_write", "entry_load", "exit_store",
             "exit_load", "load_on_entry", "load_on_exit")
    return machine.vmcs(**{name: values.word(f"vmcs.{name}") for name in words},
                        **{name: values.flag(f"vmcs.{name}") for name in flags})


CONTROLS = (("virtualize_spec_ctrl", "has_control"), ("load_on_entry", "has_entry_load"),
            ("load_on_exit", "has_exit_load"))
"""The controls that speak of the MSR: the VMCS's field, and the processor's support of it."""


def refuses(cpu: LogicalProcessor, value: Any) -> Term:
    """The term that a write of this value to the MSR would fault."""
    return any_of(not_(flag_term(cpu.has_spec_ctrl)), outside(value, cpu.writable))


def both(machine: Variant, values: Symbols) -> tuple[Any, Vmcs, Any, Vmcs]:
    """Any processor and any VMCS, and what they are before the operation."""
    cpu, vmcs = any_processor(machine, values), any_vmcs(machine, values)
    return cpu, vmcs, copy(cpu), copy(vmcs)


@theorem(rules=("processor.root.real-msr",))
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


@theorem(rules=("processor.fields.need-control",))
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


@theorem(rules=("processor.entry.control-checked", "processor.load.checked"))
def entry_checks_the_controls(machine: Variant, values: Symbols) -> Parts:
    """VM entry fails with VM-instruction error 7 exactly if one of the three controls is 1 on a processor that does not
    support it, and else with error 8 exactly if the host's field would be loaded and the MSR refuses it; nothing is
    loaded then."""
    cpu, vmcs, before, given = both(machine, values)
    seen = attempt(lambda: cpu.vm_entry(vmcs))
    missing = any_of(*(all_of(flag_term(getattr(given, control)), not_(flag_term(getattr(before, support))))
                       for control, support in CONTROLS))
    refused = all_of(flag_term(given.load_on_exit), refuses(before, given.host_spec_ctrl))
    yield "error 7", iff(ends(seen, VmxInstructionError, CONTROL_FIELD_INVALID), missing)
    yield "error 8", iff(ends(seen, VmxInstructionError, HOST_FIELD_INVALID), all_of(not_(missing), refused))
    if isinstance(seen, VmxInstructionError):
        yield "nothing is loaded", all_of(unchanged(cpu, before), unchanged(vmcs, given))
    elif seen is None:
        yield "the guest runs", flag_term(cpu.non_root)


@theorem(rules=("processor.entry.no-load", "processor.load.entry"))
def entry_loads_no_shadow(machine: Variant, values: Symbols) -> Parts:
    """A VM entry that succeeds, and whose MSR-load area lacks the MSR, loads the guest's field if that control is 1 and
    leaves the register as it is if not, whatever MASK and SHADOW hold."""
    cpu, vmcs, before, given = both(machine, values)
    vmcs.entry_load = False
    seen = attempt(lambda: cpu.vm_entry(vmcs))
    if seen is None:
        yield "the register", when(
            flag_term(given.load_on_entry), same(cpu.spec_ctrl, given.guest_spec_ctrl),
            same(cpu.spec_ctrl, before.spec_ctrl))
    yield "the VMCS", unchanged(vmcs, given, "entry_load")


@theorem(rules=("processor.load.checked",))
def entry_that_fails_late_loads_the_host(machine: Variant, values: Symbols) -> Parts:
    """Once its controls and the host's field are right, VM entry fails exactly if the MSR refuses the guest's field
    that would be loaded, or the value in the MSR-load area.  The host runs then, with its own field if that control is
    1, and with the value of the VM-exit MSR-load area if there is one, which aborts if the MSR refuses it."""
    cpu, vmcs, before, given = both(machine, values)
    for one in (cpu, before):
        one.has_control, one.has_entry_load, one.has_exit_load = True, True, True
    seen = attempt(lambda: cpu.vm_entry(vmcs))
    if isinstance(seen, VmxInstructionError):
        return
    refused = any_of(all_of(flag_term(given.load_on_entry), refuses(before, given.guest_spec_ctrl)),
                     all_of(flag_term(given.entry_load), refuses(before, given.entry_load_value)))
    aborts = all_of(flag_term(given.exit_load), refuses(before, given.exit_load_value))
    yield "it fails", iff(ends(seen, VmEntryFailed), all_of(refused, not_(aborts)))
    yield "it aborts", iff(ends(seen, VmxAbort), all_of(refused, aborts))
    if seen is not None:
        yield "the host runs", not_(flag_term(cpu.non_root))
    if isinstance(seen, VmEntryFailed):
        yield "its field", implies(all_of(flag_term(given.load_on_exit), not_(flag_term(given.exit_load))),
                                   same(cpu.spec_ctrl, given.host_spec_ctrl))
        yield "its area", implies(flag_term(given.exit_load), same(cpu.spec_ctrl, given.exit_load_value))


@theorem(rules=("processor.load.saved", "processor.load.exit", "processor.areas.real-msr+2"))
def exit_saves_and_loads(machine: Variant, values: Symbols) -> Parts:
    """VM exit saves the register in the guest's field exactly on a processor that could load it from there at entry; it
    loads the host's field if that control is 1, and after it the value of the VM-exit MSR-load area if there is one,
    which aborts exactly if the MSR refuses it; else the register stays.  MASK and SHADOW stay.  The MSR-store area is
    left out."""
    cpu, vmcs, before, given = both(machine, values)
    vmcs.exit_store = False
    seen = attempt(lambda: cpu.vm_exit(vmcs))
    area = flag_term(given.exit_load)
    yield "it aborts", iff(ends(seen, VmxAbort), all_of(area, refuses(before, given.exit_load_value)))
    yield "saved", when(flag_term(before.has_entry_load), same(vmcs.guest_spec_ctrl, before.spec_ctrl),
                        same(vmcs.guest_spec_ctrl, given.guest_spec_ctrl))
    field = when(flag_term(given.load_on_exit), same(cpu.spec_ctrl, given.host_spec_ctrl),
                 same(cpu.spec_ctrl, before.spec_ctrl))
    if seen is None:
        yield "the register", when(area, same(cpu.spec_ctrl, given.exit_load_value), field)
    yield "no other field", unchanged(vmcs, given, "exit_store", "guest_spec_ctrl")
    yield "the host runs", not_(flag_term(cpu.non_root))


@theorem(rules=("processor.areas.not-listed",))
def areas_act_where_the_control_is_0(machine: Variant, values: Symbols) -> Parts:
    """With "virtualize IA32_SPEC_CTRL" at 0 the VM-entry MSR-load area loads its value after the guest's field, and the
    VM-exit MSR-store area receives the register before anything of the host is loaded."""
    cpu, vmcs, _, given = both(machine, values)
    vmcs.virtualize_spec_ctrl, vmcs.entry_load = False, True
    if attempt(lambda: cpu.vm_entry(vmcs)) is None:
        yield "loaded", same(cpu.spec_ctrl, given.entry_load_value)
    cpu, vmcs, before, _ = both(machine, values)
    vmcs.virtualize_spec_ctrl, vmcs.exit_store, cpu.has_spec_ctrl = False, True, True
    attempt(lambda: cpu.vm_exit(vmcs))
    yield "stored", same(vmcs.exit_store_value, before.spec_ctrl)


@theorem(rules=("processor.areas.not-listed",))
def nothing_rests_on_what_an_area_loads_or_stores(machine: Variant, values: Symbols) -> Parts:
    """With "virtualize IA32_SPEC_CTRL" at 1 the value that the VM-entry MSR-load area loads, or the VM-exit MSR-store
    area receives, is any value at all: the guest runs with it, and no field but the area's own has it."""
    anything = values.word("undefined")
    cpu, vmcs, _, given = both(machine, values)
    vmcs.virtualize_spec_ctrl, vmcs.entry_load = True, True
    seen = attempt(lambda: cpu.vm_entry(vmcs))
    if seen is None:
        yield "loaded", same(cpu.spec_ctrl, anything)
    yield "the VMCS at entry", unchanged(vmcs, given, "entry_load", "virtualize_spec_ctrl")
    cpu, vmcs, _, given = both(machine, values)
    vmcs.virtualize_spec_ctrl, vmcs.exit_store, cpu.has_spec_ctrl = True, True, True
    attempt(lambda: cpu.vm_exit(vmcs))
    yield "stored", same(vmcs.exit_store_value, anything)
    yield "the VMCS at exit", unchanged(
        vmcs, given, "exit_store", "virtualize_spec_ctrl", "exit_store_value", "guest_spec_ctrl")


@theorem(rules=("processor.load.saved",))
def load_controls_at_0_save_and_load_nothing(machine: Variant, values: Symbols) -> Parts:
    """To a hypervisor that has both controls "load IA32_SPEC_CTRL" at 0, as KVM, a processor that supports them differs
    from one that does not in the guest's field alone, which it saves at each exit."""
    cpu, vmcs, _, _ = both(machine, values)
    vmcs.load_on_entry, vmcs.load_on_exit, vmcs.entry_load, vmcs.exit_store = False, False, False, False
    without, other = copy(cpu), copy(vmcs)
    without.has_entry_load, without.has_exit_load = False, False
    for name in ("entry", "exit"):
        held, kept = cpu.spec_ctrl, vmcs.guest_spec_ctrl
        seen = attempt(lambda: getattr(cpu, f"vm_{name}")(vmcs))  # noqa: B023
        again = attempt(lambda: getattr(without, f"vm_{name}")(other))  # noqa: B023
        yield f"{name}: the outcome", truth(type(seen) is type(again))
        yield f"{name}: the processor", unchanged(cpu, without, "has_entry_load", "has_exit_load")
        yield f"{name}: the VMCS", unchanged(vmcs, other, "guest_spec_ctrl")
    yield "exit: the guest's field", when(flag_term(cpu.has_entry_load), same(vmcs.guest_spec_ctrl, held),
                                          same(vmcs.guest_spec_ctrl, kept))


@theorem(rules=("processor.load.merged-by-software",))
def merge_in_the_guest_field_keeps_what_is_forced(machine: Variant, values: Symbols) -> Parts:
    """A hypervisor that has VM entry load the MSR under the control, with MASK, the view in SHADOW and the merge of
    both in the guest's field, forces its value at every entry: after any write of the guest and the exit that follows,
    the field holds the merge of the new SHADOW, ready for the next entry, and the host has its own value."""
    cpu, vmcs, _, given = both(machine, values)
    value, bit = values.word("written"), any_bit(values)
    for control, support in CONTROLS:
        setattr(vmcs, control, True)
        setattr(cpu, support, True)
    vmcs.use_msr_bitmap, vmcs.intercept_write, vmcs.entry_load, vmcs.exit_store, vmcs.exit_load = (
        True, False, False, False, False)
    vmcs.guest_spec_ctrl = merge(given.spec_ctrl_shadow, given.spec_ctrl_mask, values.word("forced"))
    if attempt(lambda: cpu.vm_entry(vmcs)) is not None:
        return
    attempt(lambda: cpu.wrmsr_in_guest(vmcs, value))
    yield "forced", taken_from(bit, cpu.spec_ctrl, vmcs.spec_ctrl_shadow, given.spec_ctrl_mask, values.word("forced"))
    attempt(lambda: cpu.vm_exit(vmcs))
    yield "kept", taken_from(
        bit, vmcs.guest_spec_ctrl, vmcs.spec_ctrl_shadow, given.spec_ctrl_mask, values.word("forced"))
    yield "the host", same(cpu.spec_ctrl, given.host_spec_ctrl)


@theorem(rules=("processor.intercept.first",))
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


@theorem(rules=("processor.without-control.plain",))
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


@theorem(rules=("processor.rdmsr.shadow",))
def with_the_control_rdmsr_returns_shadow(machine: Variant, values: Symbols) -> Parts:
    """With the control at 1 an RDMSR that is not intercepted returns SHADOW and changes nothing."""
    cpu, vmcs, before, given = direct(machine, values, control=True)
    seen = attempt(lambda: cpu.rdmsr_in_guest(vmcs))
    yield "what is returned", same(seen, given.spec_ctrl_shadow)
    yield "nothing else", all_of(unchanged(cpu, before), unchanged(vmcs, given))


@theorem(rules=("processor.wrmsr.masked-kept", "processor.wrmsr.fault-on-merged", "processor.wrmsr.shadow-unmodified"))
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
