"""What each step of the induction does: an operation, on the mechanism and on the contract side by side."""

from collections.abc import Callable
from enum import Enum
from typing import Any

from specctrl.model.contract import Contract
from specctrl.model.kvm.state import NestedState, PendingExit
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import (
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
from specctrl.model.registers import (
    IA32_ARCH_CAPABILITIES,
    IA32_SPEC_CTRL,
    KVM_CAP_FORCE_SPEC_CTRL,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
    MSR_VIRTUAL_MITIGATION_ENUM,
)
from specctrl.proof.any_vcpu import AnyFilter, Symbols, announced, any_controls
from specctrl.proof.symbolic import settled, word_term

UNKNOWN_MSR = 0x5000_0003
"""An MSR that KVM does not have."""


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
Access = tuple[int, bool]
"""An MSR, and whether it is written."""
Act = Callable[[Vcpu, Contract, Symbols], Sight]


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


def denied(vcpu: Vcpu, msr: int, write: bool) -> bool:
    """Whether KVM refused the access for its filter, which does deny it."""
    refusal = getattr(vcpu, "refusal", None)
    return refusal is ExitReason.FILTER and not vcpu.vm.msr_filter.allows(msr, write=write)


def guest(vcpu: Vcpu, contract: Contract, access: Access, operation: Callable[[], object],
          model: Callable[[], object]) -> Sight:
    """A guest's access: what L1 asked to see goes to L1, what the filter denies is refused, else the contract says."""
    seen = perform(operation)
    if seen is Seen.REFLECTED or access[0] != IA32_SPEC_CTRL:  # whether that one exits is as the merged bitmap has it
        shown = perform(lambda: contract.show_l1(*access))
        if seen is Seen.REFLECTED or shown is Seen.REFLECTED:
            return seen, shown
    expected = Seen.FAULT if denied(vcpu, *access) else perform(model)
    refusal = getattr(vcpu, "refusal", None)
    if expected is Seen.FAULT and refusal is not None and vcpu.vm.exit_reasons & refusal.value:
        expected = Seen.EXIT
    return seen, expected


def listed(vcpu: Vcpu, access: Access, operation: Callable[[], object], model: Callable[[], object]) -> Sight:
    """An entry of L1's lists: a guest's access that is refused instead of faulting."""
    seen = perform(operation)
    if denied(vcpu, *access):
        return seen, Seen.REFUSED
    expected = perform(model)
    return seen, Seen.REFUSED if expected is Seen.FAULT else expected


def writes_view(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """WRMSR of IA32_SPEC_CTRL, any value."""
    value = values.word("written")
    return guest(vcpu, contract, (IA32_SPEC_CTRL, True), lambda: vcpu.wrmsr(IA32_SPEC_CTRL, value),
                 lambda: contract.write_view(value))


def reads_view(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """RDMSR of IA32_SPEC_CTRL."""
    return guest(vcpu, contract, (IA32_SPEC_CTRL, False), lambda: vcpu.rdmsr(IA32_SPEC_CTRL), contract.read_view)


def writes_report(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """WRMSR of MSR_VIRTUAL_MITIGATION_CTRL, any value."""
    value = values.word("written")
    return guest(vcpu, contract, (MSR_VIRTUAL_MITIGATION_CTRL, True),
                 lambda: vcpu.wrmsr(MSR_VIRTUAL_MITIGATION_CTRL, value), lambda: contract.write_report(value))


def reads_report(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """RDMSR of MSR_VIRTUAL_MITIGATION_CTRL."""
    return guest(vcpu, contract, (MSR_VIRTUAL_MITIGATION_CTRL, False),
                 lambda: vcpu.rdmsr(MSR_VIRTUAL_MITIGATION_CTRL), contract.read_report)


def reads_fixed(msr: int, field: str) -> Act:
    """A read of an MSR that only userspace writes, where it is announced."""

    def act(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
        def model() -> object:
            shown: Any = announced(vcpu)
            if msr == IA32_ARCH_CAPABILITIES:
                shown = vcpu.cpuid.arch_capabilities
            elif msr == MSR_VIRTUAL_ENUMERATION:
                shown = bool(vcpu.cpuid.arch_capabilities) and settled(word_term(vcpu.arch_capabilities) & 1 << 63 != 0)
            if not shown:
                raise Fault(GP)
            return getattr(vcpu, field)

        return guest(vcpu, contract, (msr, False), lambda: vcpu.rdmsr(msr), model)

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

    return guest(vcpu, contract, (msr, True), lambda: vcpu.wrmsr(msr, values.word("written")), model)


def accesses_unknown(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """A read or a write of an MSR that KVM does not have."""
    write = bool(values.flag("which.write"))

    def model() -> object:
        raise Fault(GP)

    def operation() -> object:
        if not write:
            return vcpu.rdmsr(UNKNOWN_MSR)
        vcpu.wrmsr(UNKNOWN_MSR, values.word("written"))
        return None

    return guest(vcpu, contract, (UNKNOWN_MSR, write), operation, model)


# ---- entry and exit


def exits(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """The guest leaves to KVM."""
    vcpu.exit_guest()
    return None, None


def enters(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """KVM_RUN goes on."""
    vcpu.run()
    return None, None


def replies(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """Userspace answers an exit, with any value or an error."""
    vcpu.pending_exit = PendingExit(ExitKind.RDMSR, ExitReason.FILTER, IA32_SPEC_CTRL, 0)
    value, error = values.word("written"), values.flag("error")
    return perform(lambda: vcpu.reply(value, error)), Seen.FAULT if error else value


# ---- ioctls


def host_sets_view(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """KVM_SET_MSRS of IA32_SPEC_CTRL, any value."""
    value = values.word("written")
    return taken(vcpu.set_msrs(((IA32_SPEC_CTRL, value),)) == 1), taken(contract.restore_view(value))


def host_gets_view(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """KVM_GET_MSRS of IA32_SPEC_CTRL."""
    return vcpu.get_msrs((IA32_SPEC_CTRL,))[0], contract.guest_view


def host_sets_report(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """KVM_SET_MSRS of the report, any value."""
    value = values.word("written")
    return taken(vcpu.set_msrs(((MSR_VIRTUAL_MITIGATION_CTRL, value),)) == 1), taken(contract.restore_report(value))


def host_gets_report(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """KVM_GET_MSRS of the report."""
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
    """KVM_CAP_FORCE_SPEC_CTRL on the vCPU, any pair."""
    mask, value = values.word("new_mask"), values.word("new_value")
    seen = perform(lambda: vcpu.enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, mask, value))
    return seen, taken(contract.userspace_force(mask, value))


def filter_changes(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """KVM_X86_SET_MSR_FILTER, any filter."""
    vcpu.vm.msr_filter = AnyFilter("new_filter", values)  # type: ignore[assignment]  # stands for every MsrFilter
    vcpu.msr_filter_changed()
    return None, None


# ---- nested virtualization


def l1_enters(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """VMLAUNCH with an empty list, with or without a pending INIT, which goes to L1."""
    controls = any_controls(values, "new_l1")
    return perform(lambda: vcpu.vmlaunch(controls, ())), perform(lambda: contract.vmlaunch(controls))


def entry_emulated(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """KVM's emulation of L1's entry, up to the first entry of its MSR-load list."""
    controls = any_controls(values, "new_l1")
    vcpu.nested_enter(controls, ())
    contract.enter_l2(controls)
    return None, None


def entry_fails(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """An entry of the list failed: back to L1."""
    vcpu.abandon_entry()
    contract.leave_l2()
    return None, None


def l2_exits(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """VMCALL with empty lists."""
    vcpu.vmcall((), ())
    contract.leave_l2()
    return None, None


def exit_emulated(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """KVM's emulation of L2's exit, up to the first entry of the MSR-load list."""
    vcpu.nested_run_pending = False  # L2 has run: it is L2 that exits
    vcpu.nested_exit((), ())
    contract.leave_l2()
    return None, None


def list_writes_view(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """An entry of a load list with IA32_SPEC_CTRL, any value."""
    value = values.word("written")
    return listed(vcpu, (IA32_SPEC_CTRL, True), lambda: vcpu.emulate_wrmsr(IA32_SPEC_CTRL, value),
                  lambda: contract.write_view(value))


def list_writes_report(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """An entry of a load list with the report, any value."""
    value = values.word("written")
    return listed(vcpu, (MSR_VIRTUAL_MITIGATION_CTRL, True),
                  lambda: vcpu.emulate_wrmsr(MSR_VIRTUAL_MITIGATION_CTRL, value), lambda: contract.write_report(value))


def list_stores_view(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """An entry of the store list with IA32_SPEC_CTRL."""
    return listed(vcpu, (IA32_SPEC_CTRL, False), lambda: vcpu.emulate_rdmsr(IA32_SPEC_CTRL), contract.read_view)


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
        if perform(lambda: vcpu.restore_nested(state)) is Seen.DONE:
            contract.restore_mode(2 if level2 else 1, state.vmx_operation, state.controls, state.smm,
                                  state.smm_left_level2, state.smm_left_vmx, state.init_pending)
        return None, None

    return act


def nested_state_is_read(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
    """KVM_GET_NESTED_STATE."""
    vcpu.save_nested()
    return None, None


# ---- VMXOFF, SMM, INIT, reset


def changes_mode(operation: str) -> Act:
    """An operation that the guest or the processor performs, which has the same name in both."""

    def act(vcpu: Vcpu, contract: Contract, values: Symbols) -> Sight:
        return perform(getattr(vcpu, operation)), perform(getattr(contract, operation))

    return act
