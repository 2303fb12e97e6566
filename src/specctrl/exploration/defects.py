"""The defects of the posted series: for each the shortest history, found by exploration, and its scenario."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from specctrl.exploration.events import CPUID, RESERVED, Event, HostSpec, Pair, all_events
from specctrl.exploration.histories import History, spelt, spelt_host
from specctrl.exploration.search import Search, worlds
from specctrl.model.kvm.variant import Variant
from specctrl.model.parts import Features
from specctrl.model.posted import RFC_V3
from specctrl.model.registers import BHI_DIS_S, IA32_SPEC_CTRL, IBRS, MSR_VIRTUAL_MITIGATION_CTRL, SSBD
from specctrl.scenario.machine import Machine
from specctrl.scenario.running import written

SPR: HostSpec = "sapphire-rapids"
SPR_AT_ZERO: HostSpec = {"part": "sapphire-rapids", "host_spec_ctrl": 0}
WITHOUT_CONTROL: HostSpec = {"part": "sapphire-rapids", "spec_ctrl_shadow": False}


@dataclass(frozen=True, slots=True)
class Case:
    """One way in which a defect shows: the property, where to search, and what may happen there."""

    id: str  # of the scenario
    defect: str
    title: str
    why: str
    rules: tuple[str, ...]
    violates: str
    allowed: Callable[[Event], bool]
    hosts: tuple[HostSpec, ...] = (SPR,)
    pair: Pair = (0, 0)
    offered: int = 3
    cpuid: Features = CPUID
    bit_63: bool = True
    bits: int = IBRS | BHI_DIS_S


def ops(*names: str) -> Callable[[Event], bool]:
    """Events with these operations."""
    return lambda event: event.op in names


def writes_report(event: Event) -> bool:
    """Whether the event is the guest's own WRMSR of the report."""
    return event.op == "wrmsr" and bool(event.step["msr"] == MSR_VIRTUAL_MITIGATION_CTRL)


def loads(event: Event, msr: int) -> bool:
    """Whether an MSR list of the event starts with this MSR."""
    return bool(event.step.get("msr_load", [[0]])[0][0] == msr)


def fails_half_way(event: Event) -> bool:
    """Whether the event is a nested entry whose list fails after its first entry."""
    return event.op == "nested_enter" and len(event.step.get("msr_load", ())) == 2


def only_lists_report(event: Event) -> bool:
    """Nested entries and exits, reports from their lists alone, writes of IA32_SPEC_CTRL."""
    nested = event.op in ("nested_enter", "nested_exit") and not fails_half_way(event)
    return (nested and not loads(event, IA32_SPEC_CTRL)) or (event.op in ("wrmsr", "exit") and not writes_report(event))


def only_userspace_reports(event: Event) -> bool:
    """KVM_SET_MSRS, and what a guest does that never reports."""
    return event.op in ("set_msrs", "wrmsr", "exit") and not writes_report(event)


def sets_view(event: Event) -> bool:
    """Whether userspace writes IA32_SPEC_CTRL."""
    return event.op == "set_msrs" and bool(event.step["msrs"][0][0] == IA32_SPEC_CTRL)


def plain_nesting(event: Event) -> bool:
    """Nested entry without lists."""
    return event.op == "nested_enter" and "msr_load" not in event.step and "intercept" not in event.step


_CASES = (
    Case("defect.mask.host-unprotected", "D1", "A guest's report leaves the host without BHI_DIS_S",
         "KVM's copy of the mask changes, the VMCS field does not: KVM computes 0x401 for a register that holds 0x1",
         ("force.mask-follows", "exit.host-restored"), "host_value_after_exit", ops("wrmsr", "exit")),
    Case("defect.mask.guest-unprotected", "D1", "A guest that reported runs without BHI_DIS_S",
         "the MASK field is as it was at creation, so the guest's next write clears the bit",
         ("force.mask-follows", "virt.report.in-force"), "report_is_in_force", ops("wrmsr", "exit")),
    Case("defect.zeros.guest-sets", "D2", "A guest sets a bit that is forced to 0",
         "the emulated write adds the forced ones and does not take the forced zeros away",
         ("force.zeros-too",), "zero_forced_bits_never_set", ops("wrmsr", "exit"), pair=(SSBD, 0), bits=IBRS | SSBD),
    Case("defect.zeros.host-keeps", "D2", "The host keeps SSBD of a guest that forces it to 0",
         "at the exit the saved value is corrected, equals the host's, and nothing is written",
         ("force.zeros-too", "exit.host-restored"), "host_value_after_exit", ops("wrmsr", "exit"),
         hosts=(SPR_AT_ZERO,), pair=(SSBD, 0), bits=IBRS | SSBD),
    Case("defect.no-control.not-forced", "D3", "Without the control a report forces nothing",
         "the force value is added to the saved value on hosts with the control only",
         ("virt.report.in-force", "intercept.without-control"), "report_is_in_force", ops("wrmsr", "exit"),
         hosts=(WITHOUT_CONTROL,)),
    Case("defect.no-control.view-lost", "D3", "Without the control a report of 0 clears the guest's register",
         "the cache that is applied again is never filled there",
         ("access.read.view",), "guest_reads_what_it_wrote", ops("wrmsr", "rdmsr"), hosts=("ice-lake-server",)),
    Case("defect.no-control.restore", "D3", "A restore without the control loses the guest's register",
         "KVM_SET_MSRS in the order of the index list writes the report last, which writes 0 to IA32_SPEC_CTRL",
         ("migration.any-order",), "migration_is_identity", ops("wrmsr", "migrate"),
         hosts=("ice-lake-server", "cascade-lake")),
    Case("defect.no-control.intercept-dropped", "D3", "Without the control a write that is not 0 ends the interception",
         "any non-zero write stops it, whatever is forced",
         ("intercept.without-control",), "forced_is_intercepted", ops("wrmsr", "exit"), hosts=(WITHOUT_CONTROL,)),
    Case("defect.no-control.list", "D3", "Without the control L2 keeps direct access after a report from a list",
         "the interception is set in the bitmap of vmcs01; that of vmcs02 was merged before",
         ("nested.report-from-list", "intercept.without-control"), "forced_is_intercepted", only_lists_report,
         hosts=(WITHOUT_CONTROL,)),
    Case("defect.shadow-not-pending.smm", "D4", "A write of SMM is lost when RSM returns to L2",
         "SHADOW of vmcs02 is written only for a pending VM entry of L1",
         ("nested.smi.view", "nested.mask-both"), "guest_reads_what_it_wrote",
         lambda event: event.op in ("wrmsr", "rdmsr", "smi", "rsm") or plain_nesting(event)),
    Case("defect.shadow-not-pending.restore", "D4", "KVM_SET_NESTED_STATE loses the view of L2",
         "a fresh vmcs02 has SHADOW 0, which is written only for a pending VM entry of L1",
         ("nested.entry.view", "migration.any-order"), "guest_reads_what_it_wrote",
         lambda event: event.op in ("wrmsr", "rdmsr", "nested_state") or plain_nesting(event)),
    Case("defect.shadow-not-pending.host-unprotected", "D4", "A stale SHADOW after RSM leaves the host unprotected",
         "the saved value is computed from the stale SHADOW, equals the host's, and nothing is written",
         ("nested.smi.view", "exit.saved-is-hardware", "exit.host-restored"), "host_value_after_exit",
         lambda event: (event.op in ("wrmsr", "smi", "rsm", "exit") and not writes_report(event))
         or plain_nesting(event)),
    Case("defect.failed-entry.view", "D5", "A nested entry that fails half-way leaves L1 an old view",
         "SHADOW of vmcs01 is not written on this way back",
         ("nested.failed-entry.view",), "guest_reads_what_it_wrote",
         lambda event: event.op in ("wrmsr", "rdmsr") or fails_half_way(event)),
    Case("defect.failed-entry.host-unprotected", "D5", "A nested entry that fails half-way leaves the host unprotected",
         "the saved value is computed from the stale SHADOW, equals the host's, and nothing is written",
         ("nested.failed-entry.view", "exit.saved-is-hardware", "exit.host-restored"), "host_value_after_exit",
         lambda event: (event.op in ("wrmsr", "exit") and not writes_report(event)) or fails_half_way(event)),
    Case("defect.report-elsewhere.restore", "D7", "A restored report leaves the host without BHI_DIS_S",
         "KVM_SET_MSRS changes KVM's copy of the mask and no VMCS",
         ("virt.report.in-force", "exit.host-restored"), "host_value_after_exit", only_userspace_reports),
    Case("defect.report-elsewhere.list", "D7", "A report from an MSR list is not in force",
         "KVM performs the list after it wrote the MASK field of vmcs02",
         ("nested.report-from-list",), "report_is_in_force", only_lists_report),
    Case("defect.report-elsewhere.withdrawn", "D7", "A report withdrawn while L2 runs stays in force there",
         "the MASK field of vmcs02 is written at nested entry only",
         ("nested.mask-both",), "nothing_else_is_forced",
         lambda event: (only_userspace_reports(event) and not sets_view(event)) or plain_nesting(event)),
    Case("defect.refused-values.first-write", "D8", "The first write of a masked reserved bit faults, later ones not",
         "KVM tests the value written, the processor the merged one",
         ("contract.write.merged-decides", "access.emulated.merged-decides"), "mechanism_refines_contract",
         lambda event: event.op == "wrmsr" and not writes_report(event), pair=(RESERVED, 0)),
    Case("defect.refused-values.migration", "D8", "A guest with a masked reserved bit in its view cannot move",
         "KVM_SET_MSRS tests the value written, not the one that would take effect",
         ("migration.restorable",), "migration_is_identity", ops("wrmsr", "migrate"),
         hosts=(SPR, "granite-rapids"), pair=(RESERVED, 0)),
    Case("defect.init.report-stays", "D9", "INIT leaves the report of the last kernel in force",
         "the report is cleared at creation only, and mask and value at neither",
         ("init.report.withdrawn",), "reset_leaves_userspace", ops("wrmsr", "init")),
    Case("defect.enumeration.not-offered", "D10", "A guest reports what it was not offered",
         "the write is tested against a constant, not against MSR_VIRTUAL_MITIGATION_ENUM",
         ("virt.ctrl.offered",), "mechanism_refines_contract", ops("wrmsr"), offered=0),
    Case("defect.enumeration.bit-63-clear", "D10", "A guest reports although nothing announces the MSRs",
         "access to the report depends on MSR_VIRTUAL_ENUMERATION alone, not on bit 63",
         ("virt.ctrl.gate",), "mechanism_refines_contract", ops("wrmsr"), bit_63=False),
    Case("defect.enumeration.cpuid-hidden", "D10", "A guest reads an MSR that its CPUID does not announce",
         "the access depends on bit 63 alone, which this guest cannot read",
         ("virt.enumeration.gate",), "mechanism_refines_contract", ops("rdmsr"), cpuid=Features(spec_ctrl=True)),
    Case("defect.saved.computed", "D18", "KVM's saved value is not what the processor held",
         "it is computed from KVM's own mask and value instead of read",
         ("exit.saved-is-hardware",), "saved_is_hardware", ops("wrmsr", "exit")),
    Case("defect.host-write.faults", "D21", "A guest makes the host's own WRMSR fault",
         "the view is applied again without its masked bits taken out and without a test",
         ("force.host-accepts",), "host_never_faults", ops("wrmsr", "exit"), pair=(RESERVED, 0)),
)

CASES: dict[str, Case] = {case.id: case for case in _CASES}
"""Every case, by the id of its scenario."""


@cache
def shortest(id: str) -> History:
    """The shortest history of a case, searched for when it is first asked for.

    >>> [event["op"] for event in shortest("defect.zeros.guest-sets").events]
    ['wrmsr']
    """
    found = search_case(CASES[id], RFC_V3)
    assert found is not None, f"{id} was not found"
    return found


def search_case(case: Case, variant: Variant) -> History | None:
    """The shortest history of a case in a variant; None if there is none at all."""
    (world,) = worlds(case.bits, case.hosts, [case.pair])
    world = replace(world, offered=case.offered, cpuid=case.cpuid, bit_63=case.bit_63)
    events = [event for event in all_events(world, case.bits, []) if case.allowed(event)]
    found = Search(variant, world, events, frozenset([case.violates])).run()
    return found.violations.get(case.violates)


def document(id: str) -> dict[str, Any]:
    """A case as a scenario of the profile ``rfc-v3``; expected is what the posted code shows."""
    case = CASES[id]
    history = shortest(id)
    machine = Machine(history.host, "rfc-v3")
    steps = []
    for step in [*history.steps(), *history.last_look()]:
        seen = written(machine.perform(step))
        if step["op"] == "observe":
            keys = ("effective", "guest_view", "mask", "shadow", "intercepted", "saved", "level")
            seen = {key: seen[key] for key in keys if key in seen}
        seen.pop("nested_flags", None)  # no property looks at them
        steps.append({**spelt(step), **({"expect": seen} if seen else {})})
    return {
        "schema": "specctrl/scenario/1",
        "id": id,
        "title": case.title,
        "why": f"{case.defect}: {case.why}",
        "rules": list(case.rules),
        "profile": "rfc-v3",
        "host": spelt_host(history.host),
        "steps": steps,
    }
