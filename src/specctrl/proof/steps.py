"""The steps of the induction, by name: which operations there are, and from where each is proven."""

from dataclasses import dataclass
from typing import Any

from specctrl.model.contract import Contract
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.registers import IA32_ARCH_CAPABILITIES, MSR_VIRTUAL_ENUMERATION, MSR_VIRTUAL_MITIGATION_ENUM
from specctrl.proof.any_vcpu import Symbols
from specctrl.proof.side_by_side import (
    Act,
    Sight,
    accesses_unknown,
    changes_mode,
    enters,
    entry_emulated,
    entry_fails,
    exit_emulated,
    exits,
    filter_changes,
    host_gets_report,
    host_gets_view,
    host_sets_fixed,
    host_sets_report,
    host_sets_view,
    l1_enters,
    l2_exits,
    list_stores_view,
    list_writes_report,
    list_writes_view,
    nested_state,
    nested_state_is_read,
    reads_fixed,
    reads_report,
    reads_view,
    replies,
    userspace_forces,
    writes_fixed,
    writes_report,
    writes_view,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation.  ``levels`` and ``places``: which VMCS is loaded and whether the guest runs when it begins.

    ``begins``: the operation begins with this one.  From the other place it is therefore the step of that name,
    then itself; the proof shows that it begins so, and proves it from one place.
    """

    name: str
    act: Act
    levels: tuple[Loaded, ...] = (Loaded.VMCS01, Loaded.VMCS02)
    places: tuple[bool, ...] = (False, True)
    keeps_view: bool = True
    begins: str = ""


BOTH, L1_ONLY, L2_ONLY = (Loaded.VMCS01, Loaded.VMCS02), (Loaded.VMCS01,), (Loaded.VMCS02,)
KVM, GUEST = (False,), (True,)


def instruction(name: str, act: Act, levels: tuple[Loaded, ...] = BOTH, keeps_view: bool = True) -> Step:
    """An instruction of the guest: KVM_RUN, unless the guest runs already, and then the instruction."""
    return Step(name, act, levels, GUEST, keeps_view, begins="run")


def ioctl(name: str, act: Act, levels: tuple[Loaded, ...] = BOTH, keeps_view: bool = True) -> Step:
    """An ioctl or an event: an exit, if the guest runs, and then what KVM does."""
    return Step(name, act, levels, KVM, keeps_view, begins="exit_guest")


STEPS: dict[str, Step] = {step.name: step for step in (
    instruction("guest writes IA32_SPEC_CTRL", writes_view, keeps_view=False),
    instruction("guest reads IA32_SPEC_CTRL", reads_view),
    instruction("guest writes MSR_VIRTUAL_MITIGATION_CTRL", writes_report),
    instruction("guest reads MSR_VIRTUAL_MITIGATION_CTRL", reads_report),
    instruction("guest reads IA32_ARCH_CAPABILITIES", reads_fixed(IA32_ARCH_CAPABILITIES, "arch_capabilities")),
    instruction("guest reads MSR_VIRTUAL_ENUMERATION", reads_fixed(MSR_VIRTUAL_ENUMERATION, "virtual_enumeration")),
    instruction("guest reads MSR_VIRTUAL_MITIGATION_ENUM", reads_fixed(MSR_VIRTUAL_MITIGATION_ENUM, "mitigation_enum")),
    instruction("guest writes an MSR that is read-only to it", writes_fixed),
    instruction("guest accesses an MSR that KVM does not have", accesses_unknown),
    Step("VM exit to KVM", exits, places=GUEST),
    Step("VM entry", enters, places=KVM),
    Step("userspace replies to an exit", replies, places=KVM),
    ioctl("KVM_SET_MSRS of IA32_SPEC_CTRL", host_sets_view, keeps_view=False),
    ioctl("KVM_GET_MSRS of IA32_SPEC_CTRL", host_gets_view),
    ioctl("KVM_SET_MSRS of MSR_VIRTUAL_MITIGATION_CTRL", host_sets_report),
    ioctl("KVM_GET_MSRS of MSR_VIRTUAL_MITIGATION_CTRL", host_gets_report),
    ioctl("KVM_SET_MSRS of IA32_ARCH_CAPABILITIES",
         host_sets_fixed(IA32_ARCH_CAPABILITIES, "arch_capabilities", None)),
    ioctl("KVM_SET_MSRS of MSR_VIRTUAL_ENUMERATION",
         host_sets_fixed(MSR_VIRTUAL_ENUMERATION, "virtual_enumeration", 0x1)),
    ioctl("KVM_SET_MSRS of MSR_VIRTUAL_MITIGATION_ENUM",
         host_sets_fixed(MSR_VIRTUAL_MITIGATION_ENUM, "mitigation_enum", 0x3)),
    ioctl("KVM_ENABLE_CAP on the vCPU", userspace_forces),
    Step("KVM_X86_SET_MSR_FILTER", filter_changes),  # from both places: the exit comes after the VM's filter changed
    instruction("L1 enters L2", l1_enters, L1_ONLY),
    Step("L1's VM entry, before its list", entry_emulated, L1_ONLY, KVM),
    Step("L1's VM entry fails", entry_fails, L2_ONLY, KVM),
    instruction("L2 exits to L1", l2_exits, L2_ONLY),
    Step("L2's exit to L1, before the load list", exit_emulated, L2_ONLY, KVM),
    Step("an entry of L1's load lists: IA32_SPEC_CTRL", list_writes_view, places=KVM, keeps_view=False),
    Step("an entry of L1's load lists: MSR_VIRTUAL_MITIGATION_CTRL", list_writes_report, places=KVM),
    Step("an entry of L1's store list: IA32_SPEC_CTRL", list_stores_view, places=KVM),
    ioctl("KVM_GET_NESTED_STATE", nested_state_is_read),
    ioctl("KVM_SET_NESTED_STATE, in L2", nested_state(True)),
    ioctl("KVM_SET_NESTED_STATE, not in L2", nested_state(False)),
    ioctl("VMXOFF", changes_mode("vmxoff"), L1_ONLY, keeps_view=False),
    ioctl("SMI", changes_mode("smi")),
    ioctl("RSM", changes_mode("rsm"), L1_ONLY, keeps_view=False),
    ioctl("INIT", changes_mode("init"), keeps_view=False),
    ioctl("platform reset", changes_mode("platform_reset"), keeps_view=False),
)}
"""Every step of the induction, by name."""


@dataclass(frozen=True, slots=True)
class Renamed(Symbols):
    """The values of one step of several: each name with the step's number."""

    values: Symbols
    number: int

    def word(self, name: str) -> Any:
        """The word of that name in this step."""
        return self.values.word(f"{self.number}.{name}")

    def flag(self, name: str) -> Any:
        """The truth value of that name in this step."""
        return self.values.flag(f"{self.number}.{name}")


THEN = ", then "


def find_step(name: str) -> Step:
    """The step of that name, or the sequence of steps whose names it joins."""
    if name in STEPS:
        return STEPS[name]
    parts = [STEPS[part] for part in name.split(THEN)]

    def act(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
        seen: Sight = (None, None)
        for number, part in enumerate(parts, start=1):
            seen = part.act(vcpu, contract, Renamed(values, number))
        return seen

    return Step(name, act, parts[0].levels, parts[0].places, keeps_view=False)
