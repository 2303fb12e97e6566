"""Histories that an exploration found, and how a scenario writes them."""

import json
from dataclasses import dataclass, field
from typing import Any

from specctrl.exploration.events import HostSpec, World
from specctrl.model.registers import (
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    MSR_NUMBERS,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
)
from specctrl.scenario.machine import Machine


@dataclass(frozen=True, slots=True)
class History:
    """A shortest history that violates a property: where it starts and what happens."""

    violates: str
    host: HostSpec
    world: World
    events: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.events)

    @property
    def reports(self) -> bool:
        """Whether a virtual MSR occurs."""
        return any(msr not in (None, IA32_SPEC_CTRL) for step in self.events for msr in _msrs(step))

    def setup(self) -> list[dict[str, Any]]:
        """The steps before the first event: the capability, the vCPU, what its guest is offered."""
        world = self.world
        steps: list[dict[str, Any]] = []
        if world.pair != (0, 0):
            cap = "KVM_CAP_FORCE_SPEC_CTRL"
            steps.append({"op": "enable_cap", "fd": "vm", "cap": cap, "args": list(world.pair)})
        steps.append({"op": "create_vcpu", "vcpu": 0, "features": list(world.cpuid.names())})
        if self.reports:
            offer = [[MSR_VIRTUAL_ENUMERATION, 1], [MSR_VIRTUAL_MITIGATION_ENUM, world.offered]]
            if not world.bit_63:
                offer.insert(0, [IA32_ARCH_CAPABILITIES, 0])
            steps.append({"op": "set_msrs", "vcpu": 0, "msrs": offer})
        return steps

    def steps(self) -> list[dict[str, Any]]:
        """The steps of a scenario: setup, the events, and a look at the vCPU."""
        steps = self.setup()
        for event in self.events:
            if event["op"] == "nested_state":
                steps.append({"op": "get_nested_state", "state": "saved"})
                steps.append({"op": "set_nested_state", "state": "saved"})
            else:
                steps.append(dict(event))
        return [*steps, {"op": "observe"}]

    def last_look(self) -> list[dict[str, Any]]:
        """What the report is then, where one was made and the host still runs."""
        if not self.reports or self.violates == "host_never_faults":
            return []
        return [{"op": "get_msrs", "msrs": [MSR_VIRTUAL_MITIGATION_CTRL]}]

    def replay(self, variant: str) -> Machine:
        """A machine of that variant after the history, with a row for each event."""
        machine = Machine(self.host, variant)
        setup = len(self.setup())
        for number, step in enumerate(self.steps()):
            if number == setup:
                machine.history.clear()
            machine.perform(step)
        return machine


def _msrs(step: dict[str, Any]) -> set[int | None]:
    """The MSRs that a step accesses, but for an entry that only makes a list fail."""
    listed = {pair[0] for pair in step.get("msr_load", ())} - {MSR_VIRTUAL_ENUMERATION}
    return {step.get("msr"), *listed, *(pair[0] for pair in step.get("msrs", ()) if isinstance(pair, list))}


@dataclass(slots=True)
class Exploration:
    """What an exploration found."""

    states: int = 0
    transitions: int = 0
    depth: int = 0
    worlds: int = 0
    violations: dict[str, History] = field(default_factory=dict)

    def add(self, other: "Exploration") -> None:
        """Take in what another exploration found; the shorter history of each property stays."""
        self.states += other.states
        self.transitions += other.transitions
        self.depth = max(self.depth, other.depth)
        self.worlds += other.worlds
        for name, history in other.violations.items():
            if name not in self.violations or len(history) < len(self.violations[name]):
                self.violations[name] = history

    def figures(self) -> dict[str, Any]:
        """What a manifest keeps: counts, and the length of each history."""
        lengths = {name: len(self.violations[name]) for name in sorted(self.violations)}
        return {
            "worlds": self.worlds,
            "states": self.states,
            "transitions": self.transitions,
            "depth": self.depth,
            "violations": lengths,
        }


# ---- as a scenario writes them

_HEX = frozenset(("value", "host_spec_ctrl"))
_NAMES = {number: name for name, number in MSR_NUMBERS.items()}


def spelt(step: dict[str, Any]) -> dict[str, Any]:
    """A step with its MSRs named and its 64-bit quantities as hex strings."""
    result: dict[str, Any] = {}
    for key, value in step.items():
        match key:
            case "msr":
                result[key] = _NAMES[value]
            case "value":
                result[key] = f"{value:#x}"
            case "args":
                result[key] = [f"{word:#x}" for word in value]
            case "msrs" | "msr_load" if value and isinstance(value[0], list):
                result[key] = [[_NAMES[msr], f"{word:#x}"] for msr, word in value]
            case "msrs":
                result[key] = [_NAMES[msr] for msr in value]
            case "to":
                result[key] = spelt_host(value)
            case _:
                result[key] = value
    return result


def spelt_host(host: HostSpec) -> HostSpec:
    """A host with its value as a hex string."""
    if isinstance(host, str):
        return host
    return {key: f"{value:#x}" if key in _HEX else value for key, value in host.items()}


def as_text(scenario: dict[str, Any]) -> str:
    """A scenario as its file: one line for each key and for each step."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in scenario.items() if key != "steps"]
    steps = ",\n".join(f"    {json.dumps(step)}" for step in scenario["steps"])
    return "\n".join(["{", *lines, '  "steps": [', steps, "  ]", "}"]) + "\n"
