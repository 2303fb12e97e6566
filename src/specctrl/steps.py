"""The steps of the induction: every operation, performed on the mechanism and on the contract side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from specctrl.contract import Contract
from specctrl.kvm.state import Loaded, NestedState, PendingExit
from specctrl.kvm.vcpu import Vcpu
from specctrl.outcomes import (
    GP,
    Blocked,
    Errno,
    ExitKind,
    ExitReason,
    Fault,
    MsrRefused,
    Reflected,
    UserspaceExit,
)
from specctrl.registers import (
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    KVM_CAP_FORCE_SPEC_CTRL,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
)
from specctrl.states import AnyFilter, Symbols, announced, any_controls
from specctrl.symbolic import settled, word_term


class Seen(Enum):
    """What an observer sees of an operation, other than a value."""

    DONE = "done"
    FAULT = "#GP"
    EXIT = "an exit to userspace"
    REFUSED = "refused"  # an errno, a short count, a failed list
    REFLECTED = "an exit to L1"
    BLOCKED = "pending"


Sight = tuple[object, object]
"""What was seen of the mechanism, and what the contract says is seen."""
Act = Callable[[Vcpu, Contract, Symbols], Sight]


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


def perform(operation: Callable[[], object]) -> object:
    """What the observer of an operation sees: its value, or how it ended."""
    try:
        result = operation()
    except Fault:
        return Seen.FAULT
    except UserspaceExit:
        return Seen.EXIT
    except (MsrRefused, Errno):
        return Seen.REFUSED
    except Reflected:
        return Seen.REFLECTED
    except Blocked:
        return Seen.BLOCKED
    return Seen.DONE if result is None else result


def taken(result: bool) -> Seen:
    """How an ioctl ends."""
    return Seen.DONE if result else Seen.REFUSED


# ---- the guest's instructions


def guest(vcpu: Vcpu, contract: Contract, operation: Callable[[], object], model: Callable[[], object]) -> Sight:
    """A guest's access.  What L1 intercepts goes to L1; what the filter denies has no effect; the contract has the rest."""
    level = vcpu.level
    seen = perform(operation)
    if seen is Seen.REFLECTED:
        contract.level = 1
        return seen, Seen.REFLECTED if level == 2 else "L1 has nobody to exit to"
    refusal = getattr(vcpu, "refusal", None)
    expected = Seen.FAULT if refusal is ExitReason.FILTER else perform(model)
    if expected is Seen.FAULT and refusal is not None and vcpu.vm.exit_reasons & refusal.value:
        expected = Seen.EXIT
    return seen, expected


def listed(vcpu: Vcpu, operation: Callable[[], object], model: Callable[[], object]) -> Sight:
    """An entry of L1's lists: a guest's access that is refused instead of faulting."""
    seen = perform(operation)
    if getattr(vcpu, "refusal", None) is ExitReason.FILTER:
        return seen, Seen.REFUSED
    expected = perform(model)
    return seen, Seen.REFUSED if expected is Seen.FAULT else expected


def writes_view(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    value = values.word("written")
    return guest(vcpu, contract, lambda: vcpu.wrmsr(IA32_SPEC_CTRL, value), lambda: contract.write_view(value))


def reads_view(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    return guest(vcpu, contract, lambda: vcpu.rdmsr(IA32_SPEC_CTRL), contract.read_view)


def writes_report(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    value = values.word("written")
    return guest(vcpu, contract, lambda: vcpu.wrmsr(MSR_VIRTUAL_MITIGATION_CTRL, value),
                 lambda: contract.write_report(value))


def reads_report(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    return guest(vcpu, contract, lambda: vcpu.rdmsr(MSR_VIRTUAL_MITIGATION_CTRL), contract.read_report)


def reads_fixed(msr: int, field: str) -> Act:
    """A read of an MSR that only userspace writes, where it is announced."""

    def act(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
        def model() -> object:
            shown: Any = announced(vcpu)
            if msr == MSR_VIRTUAL_ENUMERATION:
                shown = bool(vcpu.cpuid.arch_capabilities) and settled(word_term(vcpu.arch_capabilities) & 1 << 63 != 0)
            if not shown:
                raise Fault(GP)
            return getattr(vcpu, field)

        return guest(vcpu, contract, lambda: vcpu.rdmsr(msr), model)

    return act


def writes_fixed(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """A write of an MSR that only userspace writes."""
    msr = MSR_VIRTUAL_ENUMERATION
    if values.flag("which.arch_cap"):
        msr = IA32_ARCH_CAPABILITIES
    elif values.flag("which.enum"):
        msr = MSR_VIRTUAL_MITIGATION_ENUM

    def model() -> object:
        raise Fault(GP)

    return guest(vcpu, contract, lambda: vcpu.wrmsr(msr, values.word("written")), model)


# ---- entry and exit


def exits(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    vcpu.exit_guest()
    return None, None


def enters(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    vcpu.run()
    return None, None


def replies(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    vcpu.pending_exit = PendingExit(ExitKind.RDMSR, ExitReason.FILTER, IA32_SPEC_CTRL, 0)
    value, error = values.word("written"), values.flag("error")
    return perform(lambda: vcpu.reply(value, error)), Seen.FAULT if error else value


# ---- ioctls


def host_sets_view(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    value = values.word("written")
    return taken(vcpu.set_msrs(((IA32_SPEC_CTRL, value),)) == 1), taken(contract.restore_view(value))


def host_gets_view(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    return vcpu.get_msrs((IA32_SPEC_CTRL,))[0], contract.guest_view


def host_sets_report(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    value = values.word("written")
    return taken(vcpu.set_msrs(((MSR_VIRTUAL_MITIGATION_CTRL, value),)) == 1), taken(contract.restore_report(value))


def host_gets_report(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    return vcpu.get_msrs((MSR_VIRTUAL_MITIGATION_CTRL,))[0], contract.report


def host_sets_fixed(msr: int, field: str, valid: int | None) -> Act:
    """KVM_SET_MSRS of a feature MSR: any valid value before the first run, only its own afterwards."""

    def act(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
        value, old, frozen = values.word("written"), getattr(vcpu, field), vcpu.has_run
        seen = taken(vcpu.set_msrs(((msr, value),)) == 1)
        allowed = bool(value == old) if frozen else valid is None or bool(value & ~valid == 0)
        if allowed:
            contract.announced = announced(vcpu)
            contract.offered = vcpu.mitigation_enum
        return seen, taken(allowed)

    return act


def userspace_forces(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    mask, value = values.word("new_mask"), values.word("new_value")
    seen = perform(lambda: vcpu.enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, mask, value))
    return seen, taken(contract.userspace_force(mask, value))


def filter_changes(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    vcpu.vm.msr_filter = AnyFilter("new_filter", values)  # type: ignore[assignment]  # stands for every MsrFilter
    vcpu.msr_filter_changed()
    return None, None


# ---- nested virtualization


def l1_enters(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    vcpu.vmlaunch(any_controls(values, "new_l1"), ())
    contract.level = 2
    return None, None


def entry_emulated(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    vcpu.nested_enter(any_controls(values, "new_l1"), ())
    contract.level = 2
    return None, None


def entry_fails(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    vcpu.abandon_entry()
    contract.level = 1
    return None, None


def l2_exits(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    vcpu.vmcall((), ())
    contract.level = 1
    return None, None


def exit_emulated(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    vcpu.nested_exit((), ())
    contract.level = 1
    return None, None


def list_writes_view(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    value = values.word("written")
    return listed(vcpu, lambda: vcpu.emulate_wrmsr(IA32_SPEC_CTRL, value), lambda: contract.write_view(value))


def list_writes_report(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    value = values.word("written")
    return listed(vcpu, lambda: vcpu.emulate_wrmsr(MSR_VIRTUAL_MITIGATION_CTRL, value),
                  lambda: contract.write_report(value))


def list_stores_view(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    return listed(vcpu, lambda: vcpu.emulate_rdmsr(IA32_SPEC_CTRL), contract.read_view)


def nested_state(level2: bool) -> Act:
    """KVM_SET_NESTED_STATE of any state that was saved in L2, or not in L2."""

    def act(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
        state = NestedState(
            level2=level2,
            controls=any_controls(values, "new_l1"),
            vmx_operation=values.flag("state.vmx_operation"),
            run_pending=values.flag("state.run_pending"),
            smm=values.flag("state.smm"),
            smm_left_level2=values.flag("state.smm_left_level2"),
            smm_left_vmx=values.flag("state.smm_left_vmx"),
            init_pending=values.flag("state.init_pending"),
        )
        seen = perform(lambda: vcpu.restore_nested(state))
        if seen is Seen.DONE:
            contract.level = 2 if level2 else 1
        return None, None

    return act


def vmxoff(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    pending = bool(vcpu.init_pending)
    vcpu.vmxoff()
    if pending:
        contract.init()
    return None, None


# ---- SMM, INIT, reset


def smi(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    vcpu.smi()
    contract.level = 1
    return None, None


def rsm(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    back_in_l2, blocked, pending = bool(vcpu.smm_left_level2), bool(vcpu.smm_left_vmx), bool(vcpu.init_pending)
    seen = perform(vcpu.rsm)
    contract.level = 2 if back_in_l2 and not pending else 1
    if pending and not back_in_l2 and not blocked:
        contract.init()
    return seen, Seen.REFLECTED if pending and back_in_l2 else Seen.DONE


def init(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    blocked = bool(vcpu.smm) or (vcpu.level == 1 and bool(vcpu.vmx_operation))
    reflected = vcpu.level == 2
    seen = perform(vcpu.init)
    if blocked:
        return seen, Seen.BLOCKED
    if reflected:
        contract.level = 1
        return seen, Seen.REFLECTED
    contract.init()
    return seen, Seen.DONE


def reset(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    vcpu.platform_reset()
    contract.level = 1
    if contract.host.has_spec_ctrl:
        contract.restore_view(0)
    contract.restore_report(0)
    return None, None


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
    instruction("guest reads MSR_VIRTUAL_ENUMERATION", reads_fixed(MSR_VIRTUAL_ENUMERATION, "virtual_enumeration")),
    instruction("guest reads MSR_VIRTUAL_MITIGATION_ENUM", reads_fixed(MSR_VIRTUAL_MITIGATION_ENUM, "mitigation_enum")),
    instruction("guest writes an MSR that is read-only to it", writes_fixed),
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
    ioctl("KVM_X86_SET_MSR_FILTER", filter_changes),
    instruction("L1 enters L2", l1_enters, L1_ONLY),
    Step("L1's VM entry, before its list", entry_emulated, L1_ONLY, KVM),
    Step("L1's VM entry fails", entry_fails, L2_ONLY, KVM),
    instruction("L2 exits to L1", l2_exits, L2_ONLY),
    Step("L2's exit to L1, before the load list", exit_emulated, L2_ONLY, KVM),
    Step("an entry of L1's load lists: IA32_SPEC_CTRL", list_writes_view, places=KVM, keeps_view=False),
    Step("an entry of L1's load lists: MSR_VIRTUAL_MITIGATION_CTRL", list_writes_report, places=KVM),
    Step("an entry of L1's store list: IA32_SPEC_CTRL", list_stores_view, places=KVM),
    ioctl("KVM_SET_NESTED_STATE, in L2", nested_state(True)),
    ioctl("KVM_SET_NESTED_STATE, not in L2", nested_state(False)),
    ioctl("VMXOFF", vmxoff, L1_ONLY, keeps_view=False),
    ioctl("SMI", smi),
    ioctl("RSM", rsm, L1_ONLY, keeps_view=False),
    ioctl("INIT", init, keeps_view=False),
    ioctl("platform reset", reset, keeps_view=False),
)}
"""Every step of the induction, by name."""
