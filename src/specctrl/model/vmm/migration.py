"""A move of a whole VM from one host to another, as a VMM performs it with KVM's ioctls."""

from collections.abc import Mapping
from dataclasses import dataclass

from specctrl.model.kvm.system import FEATURE_MSRS, msr_index_list
from specctrl.model.kvm.variant import Assumptions, Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.kvm.vm import Vm
from specctrl.model.outcomes import Outcome
from specctrl.model.parts import Host
from specctrl.model.registers import (
    IA32_SPEC_CTRL,
    KVM_CAP_FORCE_SPEC_CTRL,
    KVM_CAP_X86_USER_SPACE_MSR,
    MSR_VIRTUAL_MITIGATION_CTRL,
)

STATE_MSRS = (IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL)
"""The MSRs that move as state, in the order of KVM's index list; those that the source's list has."""


class MsrsRefused(Outcome):
    """KVM_SET_MSRS at the destination did not take an MSR: the move is off, the source goes on."""

    def __init__(self, msrs: tuple[int, ...]) -> None:
        super().__init__(msrs)
        self.msrs = msrs


@dataclass(frozen=True, slots=True)
class Plan:
    """How a VMM moves: the destination, what it carries, and in which order it restores."""

    destination: Host
    nested_first: bool = True  # KVM_SET_NESTED_STATE before KVM_SET_MSRS
    msrs: tuple[int, ...] | None = None  # what KVM_SET_MSRS restores, in order; None: STATE_MSRS
    keep_force: bool = True  # whether userspace's pairs are enabled again at the destination


def migrate(
    variant: Variant, assume: Assumptions, vm: Vm, vcpus: Mapping[int, Vcpu], plan: Plan
) -> tuple[Vm, dict[int, Vcpu]]:
    """Move the VM; returns what runs at the destination.  The source is only read.

    Order at the destination: the capability, KVM_CAP_X86_USER_SPACE_MSR and the filter; each vCPU with the
    same CPUID and its own pair; the feature MSRs; then state and MSRs in the plan's order.
    Errno if an ioctl fails there, MsrsRefused if KVM_SET_MSRS stops at an MSR.

    Source: rule migration.order; QEMU restores nested state first, KVM's selftests MSRs first.
    """
    new_vm = variant.make_vm(plan.destination)
    if plan.keep_force and (vm.user_mask or vm.user_value):
        new_vm.enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, vm.user_mask, vm.user_value)
    new_vm.enable_cap(KVM_CAP_X86_USER_SPACE_MSR, 0, vm.exit_reasons, 0)
    new_vm.set_msr_filter(vm.msr_filter)

    new_vcpus: dict[int, Vcpu] = {}
    for number, vcpu in vcpus.items():
        new_vm.count_vcpu(number, exists=False)
        new_vcpus[number] = variant.make_vcpu(new_vm, vcpu.cpuid, assume)
    for number, vcpu in vcpus.items():
        restore_vcpu(vcpu, new_vcpus[number], plan)
    return new_vm, new_vcpus


def restore_vcpu(source: Vcpu, target: Vcpu, plan: Plan) -> None:
    """Give one vCPU at the destination what its source had, ioctl by ioctl."""
    own_pair = (source.user_mask, source.user_value)
    if plan.keep_force and own_pair != (target.user_mask, target.user_value):
        target.enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, *own_pair)
    set_all(target, FEATURE_MSRS, source.get_msrs(FEATURE_MSRS))
    listed = msr_index_list(source.host)
    msrs = tuple(msr for msr in STATE_MSRS if msr in listed) if plan.msrs is None else plan.msrs
    values = source.get_msrs(msrs)
    if not plan.nested_first:
        set_all(target, msrs, values)
    target.restore_nested(source.save_nested())
    if plan.nested_first:
        set_all(target, msrs, values)


def set_all(target: Vcpu, msrs: tuple[int, ...], values: list[int]) -> None:
    """KVM_SET_MSRS of all of them, or MsrsRefused with the one that it (or KVM_GET_MSRS before) stopped at."""
    done = target.set_msrs(tuple(zip(msrs, values, strict=False)))
    if done < len(msrs):
        raise MsrsRefused((msrs[done],))
