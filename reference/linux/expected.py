# SPDX-License-Identifier: GPL-2.0-only
"""What must come of a scenario on the test machine: the emulator, with Bochs' processor, as the machine is driven.

* *The processor is Bochs'*: WRMSR leaves SHADOW as it is, and MSR 0x48 takes exactly 0x5FF, whatever CPUID says.
* *The machine leaves the guest after each instruction*: each exit takes over what the guest changed.

A repair taken away is a few of the variant's operations as the ten patches have them.
"""

from collections.abc import Mapping
from typing import Any

from specctrl.model.kvm.variant import Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.posted import PostedVcpu
from specctrl.model.variants import VARIANTS
from specctrl.model.words import is_subset
from specctrl.scenario import Scenario
from specctrl.scenario.machine import Machine
from specctrl.scenario.reading import Step
from specctrl.targets.bochs.deviations import WRITABLE, ShadowStays
from specctrl.targets.guest_kernels import GuestsAbove


class BochsProcessor(ShadowStays):
    """A logical processor with the deviations that are declared of Bochs."""

    def accepts(self, value: int) -> bool:
        """Exactly 0x5FF, whatever CPUID says."""
        return bool(self.has_spec_ctrl and is_subset(value, WRITABLE))


OPERATIONS_AS_POSTED: dict[str, tuple[int, tuple[str, ...]]] = {
    "save": (1 << 0, ("save_spec_ctrl", "restore_host_spec_ctrl")),
    "load_vmcs": (1 << 1, ("load_vmcs", "set_nested_state")),
    "abandon": (1 << 2, ("abandon_entry",)),
    "interception": (1 << 3, ("update_interception",)),
    "read": (1 << 4, ("read_spec_ctrl",)),
    "write": (1 << 5, ("write_spec_ctrl",)),
    "init": (1 << 6, ("init_reset",)),
    "vcpu_cap": (1 << 7, ("force_spec_ctrl",)),
    "shows_enumeration": (1 << 8, ("shows_enumeration",)),
    "shows_mitigation_ctrl": (1 << 9, ("shows_mitigation_ctrl",)),
    "report": (1 << 10, ("write_mitigation_ctrl",)),
    "entry": (1 << 11, ("register_is_saved",)),
}
"""The bits of the test-only parameter ``as_posted``, and the methods of the posted variant that they stand for."""

REPAIRS: dict[str, tuple[str, ...]] = {
    "D1": ("save", "entry", "load_vmcs", "report"),
    "D2": ("write", "save", "entry"),
    "D3": ("interception", "read", "write", "save", "entry", "report"),
    "D4": ("load_vmcs",),
    "D5": ("abandon", "save", "entry"),
    "D7": ("save", "entry", "load_vmcs", "report"),
    "D8": ("write",),
    "D9": ("init",),
    "D10": ("shows_enumeration", "shows_mitigation_ctrl", "report"),
    "D18": ("save", "entry", "report"),
    "D21": ("report",),
    "all": tuple(OPERATIONS_AS_POSTED),
}
"""What is taken away with each repair: these operations are as posted, everything else stays as specified."""


def variant(taken_away: str) -> str:
    """The name of the variant on Bochs' processor without one repair; "" takes none away."""
    name = f"bochs{'-without-' + taken_away if taken_away else ''}"
    if name not in VARIANTS:
        methods: dict[str, Any] = {}
        for operation in REPAIRS[taken_away] if taken_away else ():
            for method in OPERATIONS_AS_POSTED[operation][1]:
                methods[method] = getattr(PostedVcpu, method)
        if methods:
            methods["set_spec_ctrl"] = PostedVcpu.set_spec_ctrl
        vcpu = type("TakenAwayVcpu", (Vcpu,), {"__slots__": (), **methods}) if methods else Vcpu
        VARIANTS[name] = Variant(name, processor=BochsProcessor, vcpu=vcpu)
    return name


INSTRUCTIONS = ("rdmsr", "wrmsr", "nested_enter", "nested_exit", "reply_msr_exit", "init", "vmxoff", "smi", "rsm")


class RigTarget:
    """The emulator on Bochs' processor, left after each instruction; keeps what it was asked and what it said."""

    observes: frozenset[str] | None = None
    max_unsupported: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.profiles = frozenset(["spec", "rfc-v3"])
        self.steps: list[tuple[Step, Mapping[str, Any]]] = []

    def begin(self, host: Any, profile: str, assume: dict[str, bool]) -> None:
        """A fresh machine."""
        self.machine = Machine(host=host, variant=self.name, assume=assume, record=False)
        self.steps = []

    def step(self, step: Step) -> Mapping[str, Any]:
        """Perform the step, then leave the guest."""
        seen = self.machine.perform(step.call())
        if step.op in INSTRUCTIONS:
            vcpu = self.machine.vcpus[step.args.get("vcpu", 0)]
            if step.op in ("smi", "rsm", "init", "vmxoff") and not vcpu.shut_down:
                vcpu.run()  # the rig sees where the vCPU is by letting it run
            vcpu.exit_guest()
        self.steps.append((step, seen))
        return seen

    def end(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def history(scenario: Scenario, taken_away: str) -> list[tuple[Step, Mapping[str, Any]]]:
    """Every step that reaches the hypervisor, and what the emulator says of it; a boot is its accesses."""
    target = RigTarget(variant(taken_away))
    above = GuestsAbove(target)
    above.begin(scenario.host, scenario.profile, scenario.assume)
    for step in scenario.steps:
        if step.expect.get("misuse"):
            break  # nothing performs it
        seen = above.step(step)
        if seen.get("host_fault") or seen.get("abort"):
            break
    return target.steps
