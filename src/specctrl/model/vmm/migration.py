"""A move of a whole VM from one host to another, as a VMM performs it with KVM's ioctls."""

from collections.abc import Mapping
from dataclasses import dataclass

from specctrl.model.kvm.system import msr_index_list
from specctrl.model.kvm.variant import Assumptions, Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.kvm.vm import Vm
from specctrl.model.outcomes import Outcome
from specctrl.model.parts import Features, Host
from specctrl.model.registers import KVM_CAP_FORCE_SPEC_CTRL, KVM_CAP_X86_USER_SPACE_MSR
from specctrl.model.vmm.vmms import AS_SPECIFIED, OnRefusal, Vmm


class MsrsRefused(Outcome):
    """KVM_SET_MSRS at the destination did not take an MSR: the move is off, the source goes on.

    ``vmm_aborts``: the destination's process ended over it.
    """

    def __init__(self, msrs: tuple[int, ...], vmm_aborts: bool) -> None:
        super().__init__(msrs, vmm_aborts)
        self.msrs = msrs
        self.vmm_aborts = vmm_aborts


class CpuidRefused(Outcome):
    """The destination would show the guest another CPUID, and its VMM compares: the move is off."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a VMM moves: the destination, what it carries, and in which order it restores."""

    destination: Host
    nested_first: bool  # KVM_SET_NESTED_STATE before KVM_SET_MSRS
    keep_force: bool  # whether userspace's pairs are enabled again at the destination
    msrs: tuple[int, ...] | None = None  # what KVM_SET_MSRS restores, in order; None: what the VMM does
    cpuid: Features | None = None  # what the destination shows its guests; None: what the source did
    vmm: Vmm = AS_SPECIFIED


def migrate(
    variant: Variant, assume: Assumptions, vm: Vm, vcpus: Mapping[int, Vcpu], plan: Plan
) -> tuple[Vm, dict[int, Vcpu]]:
    """Move the VM; returns what runs at the destination.  The source is only read.

    Order at the destination: the capability, KVM_CAP_X86_USER_SPACE_MSR and the filter; each vCPU with the
    same CPUID and its own pair; the feature MSRs; then state and MSRs in the plan's order.
    Errno if an ioctl fails there, MsrsRefused if KVM_SET_MSRS stops at an MSR and the VMM does not go on without it,
    CpuidRefused if the VMM compares and the destination shows another CPUID.

    Source: rule migration.order; QEMU restores nested state first, KVM's selftests MSRs first.
    """
    for vcpu in vcpus.values():
        if plan.vmm.compares_cpuid and plan.cpuid not in (None, vcpu.cpuid):
            raise CpuidRefused
    new_vm = variant.make_vm(plan.destination)
    if plan.keep_force and (vm.user_mask or vm.user_value):
        new_vm.enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, vm.user_mask, vm.user_value)
    new_vm.enable_cap(KVM_CAP_X86_USER_SPACE_MSR, 0, vm.exit_reasons, 0)
    new_vm.set_msr_filter(vm.msr_filter)

    new_vcpus: dict[int, Vcpu] = {}
    for number, vcpu in vcpus.items():
        new_vm.count_vcpu(number, exists=False)
        new_vcpus[number] = variant.make_vcpu(new_vm, vcpu.cpuid if plan.cpuid is None else plan.cpuid, assume)
    for number, vcpu in vcpus.items():
        restore_vcpu(vcpu, new_vcpus[number], plan)
    return new_vm, new_vcpus


def restore_vcpu(source: Vcpu, target: Vcpu, plan: Plan) -> None:
    """Give one vCPU at the destination what its source had, ioctl by ioctl."""
    own_pair = (source.user_mask, source.user_value)
    if plan.keep_force and own_pair != (target.user_mask, target.user_value):
        target.enable_cap(KVM_CAP_FORCE_SPEC_CTRL, 0, *own_pair)
    features = plan.vmm.feature_msrs
    set_all(target, features, source.get_msrs(features), plan.vmm)
    msrs = state_msrs(source.host, target.host, plan)
    values = source.get_msrs(msrs)
    if not plan.nested_first:
        set_all(target, msrs, values, plan.vmm)
    if plan.vmm.saves_nested:
        target.restore_nested(source.save_nested())
    if plan.nested_first:
        set_all(target, msrs, values, plan.vmm)


def state_msrs(source: Host, destination: Host, plan: Plan) -> tuple[int, ...]:
    """The MSRs that this plan restores as state, in order."""
    if plan.msrs is not None:
        return plan.msrs
    listed = msr_index_list(source)
    if plan.vmm.drops_unlisted:
        listed = tuple(msr for msr in listed if msr in msr_index_list(destination))
    return tuple(msr for msr in plan.vmm.state_msrs if msr in listed)


def set_all(target: Vcpu, msrs: tuple[int, ...], values: list[int], vmm: Vmm) -> None:
    """KVM_SET_MSRS of all of them; what the VMM does with one that KVM refuses, here or at KVM_GET_MSRS before.

    MsrsRefused unless it goes on without that one.
    """
    pairs = tuple(zip(msrs, values, strict=False))
    done = target.set_msrs(pairs)
    while vmm.on_refusal is OnRefusal.SKIP and done < len(pairs):
        pairs = pairs[done + 1:]
        done = target.set_msrs(pairs)
    if vmm.on_refusal is not OnRefusal.SKIP and done < len(msrs):
        raise MsrsRefused((msrs[done],), vmm.on_refusal is OnRefusal.ABORT)
