"""The steps of the induction, by name: which operations there are, and from where each is proven."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from specctrl.model.contract import Contract
from specctrl.model.kvm.state import Loaded
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.registers import IA32_ARCH_CAPABILITIES, MSR_VIRTUAL_ENUMERATION, MSR_VIRTUAL_MITIGATION_ENUM
from specctrl.proof.any_vcpu import Symbols
from specctrl.proof.side_by_side import (
    Act,
    Seen,
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


class Resets(Enum):
    """What a reset surely takes."""

    VIEW = "the view; the report only under the assumption init-withdraws-report"
    VIEW_AND_REPORT = "the view and the report"


REFUSALS = (Seen.FAULT, Seen.EXIT, Seen.REFUSED, Seen.BLOCKED, Seen.REFLECTED)
"""The outcomes of an operation that did nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: from where it begins, and what is owed after it besides what is owed after each."""

    name: str
    act: Act
    levels: tuple[Loaded, ...] = (Loaded.VMCS01, Loaded.VMCS02)
    """Which VMCS is loaded."""
    places: tuple[bool, ...] = (False, True)
    """Whether the guest runs."""
    begins: str = ""
    """The operation that it begins with.  From the other place it is therefore the step of that name, then itself; the
    proof shows that it begins so, and proves it from one place."""
    keeps_view: bool = True
    """It leaves the guest's view as it is, whatever comes of it."""
    refusals: tuple[Seen, ...] = REFUSALS
    """The outcomes after which it left the view as it is, if others change it."""
    shows_view: str = ""
    """The claim that says that its value is the guest's view."""
    is_gated: bool = False
    """It is an access of a virtual MSR, or of one that only userspace writes."""
    resets: Resets | None = None
    """What it resets, where nothing keeps it from doing so."""


BOTH, L1_ONLY, L2_ONLY = (Loaded.VMCS01, Loaded.VMCS02), (Loaded.VMCS01,), (Loaded.VMCS02,)
KVM, GUEST = (False,), (True,)


def instruction(name: str, act: Act, levels: tuple[Loaded, ...] = BOTH, **owed: Any) -> Step:
    """An instruction of the guest: KVM_RUN, unless the guest runs already, and then the instruction."""
    return Step(name, act, levels, GUEST, begins="run", **owed)


def ioctl(name: str, act: Act, levels: tuple[Loaded, ...] = BOTH, **owed: Any) -> Step:
    """An ioctl or an event: an exit, if the guest runs, and then what KVM does."""
    return Step(name, act, levels, KVM, begins="exit_guest", **owed)


STEPS: dict[str, Step] = {step.name: step for step in (
    instruction("guest writes IA32_SPEC_CTRL", writes_view, keeps_view=False),
    instruction("guest reads IA32_SPEC_CTRL", reads_view, shows_view="guest_reads_what_it_wrote"),
    instruction("guest writes MSR_VIRTUAL_MITIGATION_CTRL", writes_report, is_gated=True),
    instruction("guest reads MSR_VIRTUAL_MITIGATION_CTRL", reads_report, is_gated=True),
    instruction("guest reads IA32_ARCH_CAPABILITIES", reads_fixed(IA32_ARCH_CAPABILITIES, "arch_capabilities")),
    instruction("guest reads MSR_VIRTUAL_ENUMERATION", reads_fixed(MSR_VIRTUAL_ENUMERATION, "virtual_enumeration"),
                is_gated=True),
    instruction("guest reads MSR_VIRTUAL_MITIGATION_ENUM", reads_fixed(MSR_VIRTUAL_MITIGATION_ENUM, "mitigation_enum"),
                is_gated=True),
    instruction("guest writes an MSR that is read-only to it", writes_fixed, is_gated=True),
    instruction("guest accesses an MSR that KVM does not have", accesses_unknown),
    Step("VM exit to KVM", exits, places=GUEST),
    Step("VM entry", enters, places=KVM),
    Step("userspace replies to an exit", replies, places=KVM),
    ioctl("KVM_SET_MSRS of IA32_SPEC_CTRL", host_sets_view, keeps_view=False),
    ioctl("KVM_GET_MSRS of IA32_SPEC_CTRL", host_gets_view, shows_view="get_msrs_is_the_view"),
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
    Step("an entry of L1's store list: IA32_SPEC_CTRL", list_stores_view, places=KVM,
         shows_view="guest_reads_what_it_wrote"),
    ioctl("KVM_GET_NESTED_STATE", nested_state_is_read),
    ioctl("KVM_SET_NESTED_STATE, in L2", nested_state(True)),
    ioctl("KVM_SET_NESTED_STATE, not in L2", nested_state(False)),
    ioctl("VMXOFF", changes_mode("vmxoff"), L1_ONLY, keeps_view=False),
    ioctl("SMI", changes_mode("smi")),
    ioctl("RSM", changes_mode("rsm"), L1_ONLY, keeps_view=False,  # an INIT that waited goes to L1 once RSM is done
          refusals=tuple(seen for seen in REFUSALS if seen is not Seen.REFLECTED)),
    ioctl("INIT", changes_mode("init"), keeps_view=False, resets=Resets.VIEW),
    ioctl("platform reset", changes_mode("platform_reset"), keeps_view=False, resets=Resets.VIEW_AND_REPORT),
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


def in_sequence(*names: str) -> Step:
    """Several steps, one after the other, as one."""
    parts = [STEPS[name] for name in names]

    def act(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
        seen: Sight = (None, None)
        for number, part in enumerate(parts, start=1):
            seen = part.act(vcpu, contract, Renamed(values, number))
        return seen

    return Step(", then ".join(names), act, parts[0].levels, parts[0].places, keeps_view=False)


HUNTS: dict[str, Step] = {
    "host_value_after_exit": in_sequence(
        "guest writes MSR_VIRTUAL_MITIGATION_CTRL", "guest writes IA32_SPEC_CTRL", "VM exit to KVM"),
    "saved_is_hardware": in_sequence(
        "guest writes MSR_VIRTUAL_MITIGATION_CTRL", "guest writes IA32_SPEC_CTRL", "VM exit to KVM"),
    "userspace_wins": in_sequence("guest writes IA32_SPEC_CTRL"),
}
"""Claims that the posted code keeps in one step from the invariant and breaks in a few: the steps, for each."""


def find_step(name: str) -> Step:
    """The step of that name, or the sequence of steps."""
    return next(step for step in (*STEPS.values(), *HUNTS.values()) if step.name == name)
