"""The rules of the processor's chapter as cases: every bit of the word against every state that a rule looks at.

A case says what is done, never what must come out: that is what this specification's processor shows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from specctrl.targets.bochs.operations import Step

BITS = tuple(1 << place for place in range(64))
BOTH = (False, True)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a processor has, and the bits that its MSR takes: what a case can start from."""

    has_msr: bool
    has_control: bool
    has_exit_load: bool
    takes: int


@dataclass(frozen=True, slots=True)
class Case:
    """A start and the steps after it; accesses of the guest pass through unless ``fields`` say otherwise."""

    steps: tuple[Step, ...]
    msr: int = 0
    mask: int = 0
    shadow: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    host: int = 0  # the host-state field


READ, RUN = Step("guest rdmsr"), Step("guest runs")
CONTROL = {"virtualize_spec_ctrl": True}
OFF = ({"virtualize_spec_ctrl": False}, {"virtualize_spec_ctrl": False, "tertiary_inactive": True})
"""The two ways in which the control is 0; the second has its bit at 1."""


def holds(kind: Kind, bit: int) -> tuple[int, ...]:
    """What the MSR can hold in this bit."""
    return (0, bit) if kind.takes & bit else (0,)


def root_accesses(kind: Kind) -> Iterator[Case]:
    """Root operation, under a VMCS that would change what a guest sees."""
    for bit, under in product(BITS, (0, 1)):
        for msr in holds(kind, bit):
            for value in (0, bit):
                steps = (Step("wrmsr", value), Step("rdmsr"))
                yield Case(steps, msr, bit * under, bit * (1 - under), dict(CONTROL) if kind.has_control else {})


def fields_exist(kind: Kind) -> Iterator[Case]:
    """VMWRITE and VMREAD of both fields."""
    for bit in BITS:
        yield Case((Step("write mask", bit), Step("write shadow", bit), Step("read shadow")))


def control_at_entry(kind: Kind) -> Iterator[Case]:
    """VM entry with the control and without it."""
    yield Case((RUN,))
    yield Case((RUN, READ), fields=dict(CONTROL))


def interception(kind: Kind) -> Iterator[Case]:
    """Each combination of bitmap and interception, with every bit written, those that would fault too."""
    settings = product(BOTH, BOTH, BOTH, BOTH if kind.has_control else (False,))
    for use, read, write, virtualize in settings:
        if use and not read and not write:
            continue  # nothing is intercepted
        under = {"use_msr_bitmap": use, "intercept_read": read, "intercept_write": write,
                 "virtualize_spec_ctrl": virtualize}
        for bit in BITS:
            yield Case((READ, Step("guest wrmsr", bit)), mask=bit, fields=under)
            yield Case((READ, Step("guest wrmsr", bit)), shadow=bit, fields=under)


def without_control(kind: Kind) -> Iterator[Case]:
    """Accesses of the guest while the control is 0, with each MASK and SHADOW."""
    ways = OFF if kind.has_control else OFF[:1]
    for bit, under, mask, shadow, value in product(BITS, ways, (0, 1), (0, 1), (0, 1)):
        for msr in holds(kind, bit):
            yield Case((READ, Step("guest wrmsr", bit * value)), msr, bit * mask, bit * shadow, dict(under))


def shadow_is_read(kind: Kind) -> Iterator[Case]:
    """RDMSR of the guest under the control."""
    for bit, mask, shadow in product(BITS, (0, 1), (0, 1)):
        for msr in holds(kind, bit):
            yield Case((READ,), msr, bit * mask, bit * shadow, dict(CONTROL))


def guest_writes(kind: Kind) -> Iterator[Case]:
    """WRMSR of the guest under the control: the whole table, SHADOW being other than the source operand."""
    for bit, mask, source in product(BITS, (0, 1), (0, 1)):
        for msr in holds(kind, bit):
            yield Case((Step("guest wrmsr", bit * source),), msr, bit * mask, bit * (1 - source), dict(CONTROL))


def entry_alone(kind: Kind) -> Iterator[Case]:
    """A stay in the guest without an access of the MSR."""
    for bit, mask, shadow in product(BITS, (0, 1), (0, 1)):
        for msr in holds(kind, bit):
            yield Case((RUN,), msr, bit * mask, bit * shadow, dict(CONTROL))


def entry_load_and_exit_store(kind: Kind) -> Iterator[Case]:
    """The VM-entry MSR-load and VM-exit MSR-store areas while the control is 0.

    While it is 1, the value that the former leaves in the MSR and the one that the latter receives are undefined
    (SDM vol. 3, order 326019-092, loading MSRs at VM entry, saving MSRs at VM exit), and nothing is asked.
    """
    for bit in BITS:
        yield Case((RUN,), 0, 0, bit, {"entry_load": True, "entry_load_value": bit})
        for msr in holds(kind, bit):
            if kind.has_msr:
                yield Case((RUN,), msr, 0, bit, {"exit_store": True})


def exit_load(kind: Kind) -> Iterator[Case]:
    """The VM-exit MSR-load area, but for a refused value: that ends in a VMX abort, which Bochs does not survive."""
    for bit in (bit for bit in BITS if kind.takes & bit):
        for value, control in product((0, bit), BOTH if kind.has_control else (False,)):
            load = {"exit_load": True, "exit_load_value": value, "virtualize_spec_ctrl": control}
            yield Case((RUN,), bit - value, 0, bit, load)


def host_field_loaded(kind: Kind) -> Iterator[Case]:
    """VMWRITE of the host-state field, and a VM exit with the control that loads it, after a guest that wrote."""
    for bit in BITS:
        yield Case((Step("write host", bit),))
        if kind.has_exit_load and kind.takes & bit:
            for host, source, control in product((0, bit), (0, bit), BOTH):
                loads = {"load_on_exit": True, "virtualize_spec_ctrl": control}
                yield Case((Step("guest wrmsr", source),), bit - host, 0, bit - source, loads, host)


def fields_checked(kind: Kind) -> Iterator[Case]:
    """VM entry with each control that loads the MSR, where it may be 1 and where it may not; every value to load."""
    yield Case((RUN,), fields={"load_on_entry": True})
    yield Case((RUN,), fields={"load_on_exit": True})
    for bit in BITS if kind.has_exit_load else ():
        for loads, control in product(BOTH, BOTH):
            under = {"load_on_exit": loads, "virtualize_spec_ctrl": control}
            yield Case((RUN, READ), host=bit, fields=under)
        late = {"load_on_exit": True, "entry_load": True, "entry_load_value": bit}
        yield Case((RUN,), msr=0x1, host=0x4, fields=late)


Cases = Callable[[Kind], Iterator[Case]]
NEED_CONTROL = frozenset({"processor.rdmsr.shadow", "processor.wrmsr.masked-kept", "processor.wrmsr.fault-on-merged",
                          "processor.wrmsr.shadow-unmodified", "processor.entry.no-load"})
"""The rules that say something of the control at 1 only."""
NEED_MSR = frozenset({"processor.areas.real-msr+2"})
"""The rule that has cases only where the MSR takes something."""

CASES: dict[str, Cases] = {
    "processor.root.real-msr": root_accesses,
    "processor.fields.need-control": fields_exist,
    "processor.entry.control-checked": control_at_entry,
    "processor.intercept.first": interception,
    "processor.without-control.plain": without_control,
    "processor.rdmsr.shadow": shadow_is_read,
    "processor.wrmsr.masked-kept": guest_writes,
    "processor.wrmsr.fault-on-merged": guest_writes,
    "processor.wrmsr.shadow-unmodified": guest_writes,
    "processor.load.exit": host_field_loaded,
    "processor.load.checked": fields_checked,
    "processor.areas.not-listed": entry_load_and_exit_store,
    "processor.areas.real-msr+2": exit_load,
    "processor.entry.no-load": entry_alone,
}
"""For each rule its cases."""

NO_ENTRY_LOAD = 'no model offers the VM-entry control "load IA32_SPEC_CTRL": bit 24 is 0 in the high half of MSR 0x490'
NOT_SHOWN = {
    "processor.load.entry": NO_ENTRY_LOAD,
    "processor.load.saved": NO_ENTRY_LOAD,
    "processor.load.merged-by-software": NO_ENTRY_LOAD,
}
"""The rules without cases, and why; for that reason ``processor.load.checked`` has none of the guest-state field."""

LOOKS_AT = {
    "processor.wrmsr.masked-kept": ("msr",),
    "processor.wrmsr.fault-on-merged": ("outcome",),
    "processor.wrmsr.shadow-unmodified": ("shadow",),
}
"""What a rule's check compares, where others have the same cases; by default everything that is seen."""
