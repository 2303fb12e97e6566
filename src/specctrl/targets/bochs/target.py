"""``bochs``: the emulator's KVM, of either profile, on the processors of Bochs.

Everything is the emulator's but the processor and the VMCS fields: those are Bochs', by the variant's seam.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from specctrl.model.kvm.variant import Variant
from specctrl.model.outcomes import Unsupported
from specctrl.model.processor import Vmcs
from specctrl.model.variants import VARIANTS
from specctrl.scenario.format import SHOWS
from specctrl.scenario.kinds import Json
from specctrl.scenario.machine import Machine
from specctrl.scenario.reading import Step
from specctrl.scenario.running import TargetFailed
from specctrl.targets.bochs.deviations import SHADOW_STAYS, WRITABLE, WRITABLE_FIXED
from specctrl.targets.bochs.processes import Processes
from specctrl.targets.bochs.processor import BochsProcessor, BochsVmcs, bound


class HostProcessor(BochsProcessor):
    """A processor of Bochs in the place of a host's: what the declared deviations change is put right, or said."""

    def wrmsr(self, value: int) -> None:
        """WRMSR in root operation."""
        super().wrmsr(value)
        self.stop_if_host_refuses(value)

    def accepts(self, value: int) -> bool:
        """Whether a write completes."""
        accepted = super().accepts(value)
        if accepted:
            self.stop_if_host_refuses(value)
        return accepted

    def vm_entry(self, vmcs: Vmcs) -> None:
        """VM entry; nobody may look at what the SDM leaves undefined."""
        self.stop_if_more_is_offered(vmcs.load_on_exit)
        super().vm_entry(vmcs)
        if vmcs.entry_load and vmcs.virtualize_spec_ctrl:
            self.undefined()

    def vm_exit(self, vmcs: Vmcs) -> None:
        """VM exit, the same."""
        super().vm_exit(vmcs)
        if vmcs.exit_store and vmcs.virtualize_spec_ctrl:
            self.undefined()

    def wrmsr_in_guest(self, vmcs: Vmcs, source: int) -> None:
        """WRMSR in the guest."""
        before = vmcs.spec_ctrl_shadow if vmcs.virtualize_spec_ctrl else 0
        super().wrmsr_in_guest(vmcs, source)
        self.stop_if_host_refuses(self.spec_ctrl)
        if vmcs.virtualize_spec_ctrl and source != before:
            self.complete_shadow(vmcs, source, before)

    def complete_shadow(self, vmcs: Vmcs, source: int, before: int) -> None:
        """Write SHADOW if the processor has left it as it was; TargetFailed if it has not, against the declaration."""
        shadow = self.read_shadow(vmcs)
        if shadow == source:
            raise TargetFailed(f"the deviation {SHADOW_STAYS.name} is declared and not seen any more: WRMSR of "
                               f"{source:#x} in the guest has updated SHADOW")
        if shadow == before:
            self.processes.seen[SHADOW_STAYS.name] += 1
            self.write_shadow(vmcs, source)

    def write_host_field(self, vmcs: Vmcs, value: int) -> None:
        """VMWRITE of host IA32_SPEC_CTRL."""
        self.stop_if_more_is_offered(True)
        super().write_host_field(vmcs, value)

    def stop_if_more_is_offered(self, used: bool) -> None:
        """Unsupported if a host without the VM-exit control uses it, whose processor here has it."""
        if used and self.has_control and not self.has_exit_load:
            raise Unsupported("Bochs' processors with the control offer the VM-exit control that loads IA32_SPEC_CTRL")

    def stop_if_host_refuses(self, value: int) -> None:
        """Unsupported if the processor took bits that the host which it stands for refuses."""
        refused = value & WRITABLE & ~self.writable
        if refused:
            self.processes.seen[WRITABLE_FIXED.name] += 1
            raise Unsupported(f"Bochs' IA32_SPEC_CTRL takes {WRITABLE:#x}, this host's refuses {refused:#x}")


def on_bochs(variant: Variant, on: Processes, processor: type[HostProcessor] = HostProcessor) -> Variant:
    """A variant whose processors and VMCSs are on these processes."""
    return replace(variant, processor=bound(processor, on), vmcs=BochsVmcs)


class BochsTarget:
    """The modelled KVM on an independent processor; BochsMissing if there is none here."""

    name = "bochs"
    profiles = frozenset(VARIANTS)
    observes: frozenset[str] | None = frozenset(SHOWS)
    max_unsupported: int | None = None

    def __init__(self, processor: type[HostProcessor] = HostProcessor) -> None:
        self.processes = Processes()
        self.variants = {name: on_bochs(variant, self.processes, processor) for name, variant in VARIANTS.items()}
        self.machine: Machine | None = None

    def begin(self, host: str | dict[str, Any], profile: str, assume: dict[str, bool]) -> None:
        """Make a fresh machine of the scenario's profile, whose processors are Bochs'."""
        self.processes.forget()
        self.machine = Machine(host=host, variant=profile, assume=assume, record=False)
        self.machine.variant = self.variants[profile]  # only the VM is made yet, and that is the same

    def step(self, step: Step) -> Mapping[str, Json]:
        """Perform the step on the machine."""
        assert self.machine is not None
        return self.machine.perform(step.call())

    def end(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """End the processes."""
        self.processes.close()

    def kill(self) -> None:
        """End the processes without further words."""
        for process in self.processes.running.values():
            process.program.kill()
