"""The explorer's properties along one history, step by step, beside the specification.

Every step is performed twice: in the variant, and in the specification.  What the contract asks of the variant's
processor follows from the state that the specification is in.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from specctrl.exploration.looks import (
    NOTES,
    broken_by_move,
    broken_by_register,
    broken_by_reset,
    forced_by,
    of_contract,
    of_vcpu,
    watched,
)
from specctrl.model.contract import MODE, Contract, ReportKeptBy
from specctrl.model.kvm.variant import SPEC, Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import Misuse
from specctrl.model.registers import MSR_VIRTUAL_MITIGATION_ENUM
from specctrl.scenario.format import OUTCOMES
from specctrl.scenario.machine import Machine
from specctrl.scenario.observation import Observation

READS = {"rdmsr": "guest_reads_what_it_wrote", "get_msrs": "get_msrs_is_the_view"}
"""Operations that show a value, and the property that it is the specification's."""


@dataclass(frozen=True)
class Looked:
    """What a step showed; what the specification shows, None if it cannot be asked there; what is violated."""

    seen: Observation
    beside: Observation | None
    violated: tuple[str, ...]


class Along:
    """A machine of a variant with one of the specification beside it; both perform the same steps.

    >>> from specctrl.model.posted import RFC_V3
    >>> along = Along("sapphire-rapids", RFC_V3)
    >>> for step in ({"op": "create_vcpu"},
    ...              {"op": "set_msrs", "msrs": [["MSR_VIRTUAL_ENUMERATION", 1], ["MSR_VIRTUAL_MITIGATION_ENUM", 3]]},
    ...              {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": 1},
    ...              {"op": "wrmsr", "msr": "MSR_VIRTUAL_MITIGATION_CTRL", "value": 1},
    ...              {"op": "wrmsr", "msr": "IA32_SPEC_CTRL", "value": 1}):
    ...     looked = along.perform(step)
    >>> looked.violated
    ('report_is_in_force',)
    >>> looked = along.perform({"op": "exit"})
    >>> looked.seen, looked.beside, looked.violated
    ({'host_spec_ctrl': 0x1}, {'host_spec_ctrl': 0x401}, ('saved_is_hardware', 'host_value_after_exit'))
    """

    def __init__(self, host: Any, variant: Variant, assume: Mapping[str, bool] | None = None) -> None:
        self.machine = Machine(host, replace(variant, vcpu=watched(variant.vcpu)), assume, record=False)
        self.other: Machine | None = Machine(host, SPEC, assume, record=False)

    def perform(self, step: Mapping[str, Any]) -> Looked:
        """Perform a step in both; Misuse if the variant cannot be asked.

        Where the specification cannot be asked, the two have gone different ways, and are compared no more.
        """
        NOTES.clear()
        seen = self.machine.perform(step)
        noted = tuple(name for name in NOTES if name != "saved_is_hardware" or "nmi_leaves" not in step)
        beside = None
        if self.other is not None:
            try:
                beside = self.other.perform(step)
            except Misuse:
                self.other = None
        found = dict.fromkeys((*noted, *self._violated(str(step["op"]), seen, beside)))
        return Looked(seen, beside, tuple(found))

    def _violated(self, op: str, seen: Observation, beside: Observation | None) -> Iterator[str]:
        if self.other is None or beside is None:
            return
        if "host_fault" in seen:
            yield "host_never_faults"
        elif any(seen.get(key) != beside.get(key) for key in OUTCOMES):
            yield "mechanism_refines_contract"
        elif op in READS and seen != beside:
            yield READS[op]
        elif op == "migrate" and seen != beside:
            yield "migration_is_identity"
        for number in self.machine.vcpus.keys() & self.other.vcpus.keys():
            vcpu, at = self.machine.vcpus[number], contract_of(self.other.vcpus[number])
            yield from broken_by_register(vcpu, forced_by(at))
            if of_vcpu(vcpu) != of_contract(at):
                yield "mechanism_refines_contract"
            if op == "migrate" and "errno" not in beside and broken_by_move(vcpu, at):
                yield "migration_is_identity"
            if op in ("init", "reset_vcpu") and not at.guest_view | at.report and broken_by_reset(vcpu, at):
                yield "reset_leaves_userspace"


def contract_of(vcpu: Vcpu) -> Contract:
    """The state of the contract that a vCPU of the specification is in."""
    enumeration = vcpu.get_msrs((MSR_VIRTUAL_MITIGATION_ENUM,))
    return Contract(
        vcpu.vm.host, vcpu.cpuid, ReportKeptBy.KVM, enumeration[0], vcpu.shows_enumeration(),
        guest_view=vcpu.read_spec_ctrl(), report=vcpu.mitigation_ctrl,
        user_mask=vcpu.user_mask, user_value=vcpu.user_value,
        **{name: getattr(vcpu, name) for name in MODE})


class Causes:
    """Which operations of a variant a violation comes from: those without which it is gone.

    Each operation in turn is the specification's instead, and the history is performed again; how far it was performed
    is kept, so that a longer history costs no more than what is new of it.
    """

    def __init__(self, host: Any, variant: Variant, assume: Mapping[str, bool]) -> None:
        self._replays = {}
        for name, own in vars(variant.vcpu).items():
            if callable(own) and hasattr(Vcpu, name) and not name.startswith("__"):
                repaired = type("Repaired", (variant.vcpu,), {"__slots__": (), name: getattr(Vcpu, name)})
                along = Along(host, replace(variant, vcpu=repaired), assume)
                self._replays[name] = _Replay(along, tuple(re.findall(r"\bD\d+\b", own.__doc__ or "")))

    def of(self, steps: Sequence[Mapping[str, Any]], violated: str) -> dict[str, tuple[str, ...]]:
        """Those of a violation of the last step, with the defects that each names.

        The steps begin with those that were given before.
        """
        return {name: replay.defects for name, replay in self._replays.items() if not replay.still(steps, violated)}


@dataclass
class _Replay:
    """A history with one operation repaired: how far it was performed, and what its last step violates."""

    along: Along
    defects: tuple[str, ...]
    performed: int = 0
    violated: tuple[str, ...] = ()
    apart: bool = False

    def still(self, steps: Sequence[Mapping[str, Any]], violated: str) -> bool:
        try:
            while self.performed < len(steps) and not self.apart:
                self.violated = self.along.perform(steps[self.performed]).violated
                self.performed += 1
        except Misuse:
            self.apart = True  # without that operation the history is another one: it says nothing
        return self.apart or violated in self.violated
