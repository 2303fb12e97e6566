"""Theorems about saving, restoring and moving a vCPU."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

from specctrl.model.kvm.state import Loaded, NestedState, PendingExit
from specctrl.model.kvm.variant import Assumptions, Variant
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import ExitKind, ExitReason, Misuse
from specctrl.model.parts import Features
from specctrl.model.registers import IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL
from specctrl.proof.any_vcpu import Symbols, any_controls, exists, same
from specctrl.proof.symbolic import current, flag_term
from specctrl.proof.terms import all_of, any_of, implies
from specctrl.proof.theorems.capability import a_host, pair_is_accepted
from specctrl.proof.theorems.msrs import same_ioctls
from specctrl.proof.theorems.statement import (
    L1_KVM,
    L2_KVM,
    Parts,
    attempt,
    choose,
    equal,
    theorem,
    truth,
    twin,
    unchanged,
)
from specctrl.scenario.machine import Machine

ORDERS = tuple(permutations(range(3)))
"""Every order of three operations; the first is the one that the others are compared with."""


@theorem(rules=("migration.any-order",))
def restoring_commutes(machine: Variant, values: Symbols) -> Parts:
    """On a new vCPU under any pair, on any host with the MSR: KVM_SET_MSRS of any view, KVM_SET_MSRS of any report and
    KVM_SET_NESTED_STATE of any state that the host takes, in any of their six orders, each end alike, and after the
    next KVM_RUN all that KVM keeps, the loaded VMCS, both bitmaps and the register are the same."""
    host = a_host(values)
    current().assume(flag_term(exists(host)))
    vm = machine.vm(host, values.word("new_mask"), values.word("new_value"))
    current().assume(any_of(all_of(same(vm.user_mask, 0), same(vm.user_value, 0)),
                           pair_is_accepted(host, vm.user_mask, vm.user_value)))
    vcpu = machine.make_vcpu(vm, Features(spec_ctrl=values.flag("cpuid.spec_ctrl")), Assumptions())
    level2 = bool(values.flag("state.level2"))
    state = NestedState(
        vmx_operation=values.flag("state.vmx_operation"), level2=level2, controls=any_controls(values, "new_l1"),
        run_pending=values.flag("state.run_pending"), smm=values.flag("state.smm"),
        smm_left_level2=values.flag("state.smm_left_level2"), smm_left_vmx=values.flag("state.smm_left_vmx"),
        init_pending=values.flag("state.init_pending"))
    for needs, given in ((state.vmx_operation, host.nested), (state.run_pending, level2)):
        current().assume(implies(flag_term(needs), flag_term(given)))
    view, report = values.word("view"), values.word("report")

    def performed(order: tuple[int, ...]) -> tuple[Vcpu, list[object]]:
        target = twin(vcpu)
        operations: tuple[Callable[[], object], ...] = (
            lambda: target.set_msrs(((IA32_SPEC_CTRL, view),)),
            lambda: target.set_msrs(((MSR_VIRTUAL_MITIGATION_CTRL, report),)),
            lambda: target.restore_nested(state),
        )
        ended: list[object] = [None, None, None]
        for number in order:
            ended[number] = attempt(operations[number])
        target.run()
        return target, [str(one) for one in ended]

    one, ended = performed(ORDERS[0])
    other, other_ended = performed(choose(values, "order", ORDERS[1:]))
    yield "each ends alike", truth(ended == other_ended)
    yield "what is kept", unchanged(one, other, "vm", "cpu", "vmcs01", "vmcs02")
    yield "the processor", unchanged(one.cpu, other.cpu)
    yield "the loaded VMCS", unchanged(one.vmcs, other.vmcs)
    for mine, theirs in ((one.vmcs01, other.vmcs01), (one.vmcs02, other.vmcs02)):
        if one.loaded is Loaded.VMCS02 or mine is one.vmcs01:
            yield "bitmaps", unchanged(mine, theirs, "spec_ctrl_mask", "spec_ctrl_shadow")


@theorem(L1_KVM, L2_KVM, rules=("migration.pending-exit",))
def a_waiting_exit_is_not_moved(vcpu: Vcpu, values: Symbols) -> Parts:
    """While an MSR exit waits for userspace's reply the machine moves no vCPU and lets no guest run: it refuses, and
    changes nothing.  Userspace's ioctls on the vCPU, and a new filter, meanwhile end as otherwise and leave the same,
    and it waits on.  After the reply nothing waits, and the move finds the vCPU as the reply left it."""
    kind, ioctl, other = choose(values, "kind", list(ExitKind)), bool(values.flag("an ioctl")), twin(vcpu)
    reason = choose(values, "reason", list(ExitReason)) if ioctl else ExitReason.FILTER
    vcpu.pending_exit = pending = PendingExit(kind, reason, IA32_SPEC_CTRL, values.word("written"))
    if ioctl:
        yield from same_ioctls(vcpu, other, values, "pending_exit")
        yield "it waits on", truth(vcpu.pending_exit is pending)
        return
    machine, before = Machine(vcpu.host, record=False), twin(vcpu)
    machine.vm, machine.vcpus = vcpu.vm, {0: vcpu}
    step = choose(values, "step", ({"op": "migrate", "to": replace(vcpu.host)}, {"op": "rdmsr", "msr": IA32_SPEC_CTRL}))
    try:
        machine.perform(step)
    except Misuse:
        yield "it is refused", truth(machine.vcpus[0] is vcpu)
    else:
        yield "it is refused", truth(False)
    yield "nothing changes", unchanged(vcpu, before, "vm")
    attempt(lambda: vcpu.reply(values.word("data"), values.flag("error")))
    waiting: object = vcpu.pending_exit
    yield "after the reply", truth(waiting is None and machine.stopped(0) is vcpu)
    yield "the view and the report", all_of(
        equal(vcpu.guest_view, before.guest_view), equal(vcpu.mitigation_ctrl, before.mitigation_ctrl),
        flag_term(vcpu.cpu.non_root))
