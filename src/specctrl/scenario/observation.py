"""What a step of a history shows, in the words of the scenario format."""

import errno as errno_module
from typing import Any

from specctrl.model.exposure import judge
from specctrl.model.guest import Software
from specctrl.model.kvm.nested import l1_intercepts
from specctrl.model.kvm.state import NestedState
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import (
    Blocked,
    Errno,
    ExitKind,
    Fault,
    HostFault,
    NestedEntryFailed,
    Outcome,
    Reflected,
    UserspaceExit,
    VmxAbort,
)
from specctrl.model.registers import IA32_SPEC_CTRL, MSR_NUMBERS
from specctrl.model.vmm.migration import CpuidRefused, MsrsRefused
from specctrl.scenario.format import NESTED_FLAGS

VECTORS = {6: "#UD", 13: "#GP"}


class Hex(int):
    """A number that is shown in hexadecimal: a 64-bit quantity or the number of an MSR.

    >>> Hex(1024)
    0x400
    """

    def __repr__(self) -> str:
        return f"{int(self):#x}"


class Observation(dict[str, Any]):
    """What a step showed; keys as in the scenario format, 64-bit quantities as :class:`Hex`."""


def describe(outcome: Outcome) -> Observation:
    """An outcome as the scenario format writes it.

    >>> describe(Fault(13))
    {'fault': '#GP'}
    """
    match outcome:
        case Fault():
            return Observation(fault=VECTORS[outcome.vector])
        case HostFault():
            return Observation(host_fault=VECTORS[outcome.vector])
        case Errno():
            return Observation(errno=errno_module.errorcode[outcome.number])
        case UserspaceExit():
            seen = {"kind": outcome.kind.value, "reason": outcome.reason.name, "msr": Hex(outcome.msr)}
            if outcome.kind is ExitKind.WRMSR:
                seen["value"] = Hex(outcome.value)
            return Observation(exit=seen)
        case Reflected():
            return Observation(reflected=True)
        case Blocked():
            return Observation(blocked=True)
        case NestedEntryFailed():
            return Observation(fail={"reason": "MSR_LOAD_FAIL", "entry": outcome.entry})
        case VmxAbort():
            return Observation(abort=True)
        case MsrsRefused():
            refused = [Hex(msr) for msr in outcome.msrs]
            return Observation(refused=refused, vmm_aborts=True) if outcome.vmm_aborts else Observation(refused=refused)
        case CpuidRefused():
            return Observation(refused=["cpuid"])
    raise TypeError(f"no description of {outcome!r}")


def index_list(msrs: tuple[int, ...]) -> Observation:
    """An index list as an observation: what it contains, and which named MSRs it lacks."""
    return Observation(
        contains=[Hex(msr) for msr in msrs],
        lacks=[Hex(number) for number in MSR_NUMBERS.values() if number not in msrs],
    )


def observe(vcpu: Vcpu, software: Software | None = None, bhi_no_suffices: bool = True) -> Observation:
    """Everything of a vCPU that can be looked at; changes nothing.

    ``software``: what its guest kernel chose; ``bhi_no_suffices``: the assumption of that name.
    """
    control = vcpu.cpu.has_control
    verdict = judge(vcpu.host, effective(vcpu), software, bhi_no_suffices, view_as_read(vcpu))
    return Observation(
        effective=Hex(effective(vcpu)),
        guest_view=Hex(view_as_read(vcpu)),
        mask=Hex(vcpu.vmcs.spec_ctrl_mask) if control else None,
        shadow=Hex(vcpu.vmcs.spec_ctrl_shadow) if control else None,
        intercepted=intercepted(vcpu, write=True),
        reads_intercepted=intercepted(vcpu, write=False),
        saved=Hex(vcpu.saved),
        level=vcpu.level,
        smm=vcpu.smm,
        in_guest=vcpu.in_guest,
        shut_down=vcpu.shut_down,
        exposed=list(verdict.exposed),
        overhead=[item.value for item in verdict.overhead],
    )


def intercepted(vcpu: Vcpu, write: bool) -> bool:
    """Whether an access of IA32_SPEC_CTRL exits at this level, after a merge of L2's bitmap that still waits."""
    waits = vcpu.bitmap_merge_pending and vcpu.level == 2
    vmcs = vcpu.vmcs01 if waits else vcpu.vmcs
    exits = not vmcs.use_msr_bitmap or (vmcs.intercept_write if write else vmcs.intercept_read)
    return exits or (waits and l1_intercepts(vcpu.controls, IA32_SPEC_CTRL, write))


def nested_flags(state: NestedState) -> list[str]:
    """What KVM_GET_NESTED_STATE says of a state in its two fields of flags."""
    said = (state.level2, state.run_pending, state.smm_left_level2, state.smm_left_vmx)
    return [name for name, holds in zip(NESTED_FLAGS, said, strict=True) if holds]


def effective(vcpu: Vcpu) -> int:
    """The processor's IA32_SPEC_CTRL while this guest runs: now, or after the entry that would come next."""
    if vcpu.in_guest or not vcpu.host.has_spec_ctrl or vcpu.register_is_saved():
        return vcpu.cpu.spec_ctrl
    return vcpu.saved


def view_as_read(vcpu: Vcpu) -> int:
    """What the guest would read from IA32_SPEC_CTRL now."""
    vmcs = vcpu.vmcs
    if vcpu.cpu.has_control and vmcs.use_msr_bitmap and not vmcs.intercept_read:
        return vmcs.spec_ctrl_shadow
    if vcpu.in_guest and not vmcs.write_intercepted:
        return vmcs.spec_ctrl_shadow if vcpu.cpu.has_control else vcpu.cpu.spec_ctrl
    return vcpu.read_spec_ctrl()
