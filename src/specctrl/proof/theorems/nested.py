"""Theorems about nested virtualization: what L1 gets and gives, its MSR lists, SMM, INIT, saved state, shutdown."""

from dataclasses import replace
from typing import Any

from specctrl.model.contract import Intercept, L1Controls
from specctrl.model.kvm.nested import l1_intercepts
from specctrl.model.kvm.state import Loaded, NestedState
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.outcomes import Blocked, Misuse, NestedEntryFailed, Reflected, VmxAbort
from specctrl.model.registers import (
    IA32_SPEC_CTRL,
    MSR_VIRTUAL_ENUMERATION,
    MSR_VIRTUAL_MITIGATION_CTRL,
)
from specctrl.proof.any_vcpu import Symbols, any_controls, exists, l1_wants, same
from specctrl.proof.side_by_side import UNKNOWN_MSR
from specctrl.proof.symbolic import current, flag_term
from specctrl.proof.terms import Term, all_of, any_of, implies, not_, when
from specctrl.proof.theorems.entry import direct_on, l2_direct
from specctrl.proof.theorems.msrs import VIRTUAL, filter_of, same_ioctls
from specctrl.proof.theorems.statement import (
    L1_GUEST,
    L1_KVM,
    L2_GUEST,
    L2_KVM,
    Parts,
    attempt,
    choose,
    ends,
    equal,
    iff,
    merged_outside,
    theorem,
    truth,
    twin,
    unchanged,
)
from specctrl.scenario.machine import Machine

RECORDS = ("vm", "cpu", "vmcs01", "vmcs02")


def acceptable(vcpu: Vcpu, value: object) -> Term:
    """The term that an entry of L1's lists may write this to IA32_SPEC_CTRL: filter, CPUID, and the merge."""
    return all_of(filter_of(vcpu, IA32_SPEC_CTRL, write=True), flag_term(vcpu.cpuid.spec_ctrl),
                  flag_term(exists(vcpu.host)), not_(merged_outside(
                      value, vcpu.force_mask, vcpu.force_value, vcpu.host.writable)))


def listed(values: Symbols, name: str) -> L1Controls:
    """Any controls of L1, with lists for its exits that store the MSR and load it with any value."""
    return replace(any_controls(values, name), exit_msr_store=(IA32_SPEC_CTRL,),
                   exit_msr_load=((IA32_SPEC_CTRL, values.word(f"{name}.exit")),))


def words_of(vcpu: Vcpu) -> tuple[Any, ...]:
    """The guest's view, its report, userspace's pair and the pair in force."""
    return (vcpu.guest_view, vcpu.mitigation_ctrl, vcpu.user_mask, vcpu.user_value, vcpu.force_mask, vcpu.force_value)


@theorem(L1_KVM, rules=("nested.no-control-for-l1", "nested.bitmap.merged", "nested.bitmap.when"))
def l1_never_has_the_control(vcpu: Vcpu, values: Symbols) -> Parts:
    """Whatever L1 asks for: when L2 is entered vmcs02 has the control exactly where the host has it, with the vCPU's
    own mask in force and view in MASK and SHADOW; L2's bitmap intercepts what vmcs01's or L1's does, everything if L1
    has none; and pair, report and view are what they were."""
    before, controls = twin(vcpu), any_controls(values, "new_l1")
    vcpu.nested_enter(controls, ())
    control = flag_term(vcpu.host.spec_ctrl_shadow)
    yield "the control", iff(vcpu.vmcs02.virtualize_spec_ctrl, control)
    yield "MASK and SHADOW", implies(control, all_of(
        same(vcpu.vmcs02.spec_ctrl_mask, vcpu.force_mask), same(vcpu.vmcs02.spec_ctrl_shadow, vcpu.guest_view)))
    yield "loaded", truth(vcpu.loaded is Loaded.VMCS02 and vcpu.vmx_operation is True)
    yield "the words", equal(words_of(vcpu), words_of(before))
    for name, write in (("reads", False), ("writes", True)):
        mine = flag_term(vcpu.vmcs01.intercept_write if write else vcpu.vmcs01.intercept_read)
        yield name, iff(l2_direct(vcpu, write), not_(any_of(mine, l1_wants(controls, IA32_SPEC_CTRL, write))))


@theorem(L1_KVM, L2_KVM, L2_GUEST, rules=("nested.bitmap.merged", "nested.bitmap.when"))
def bitmaps_are_merged_when_they_must_be(vcpu: Vcpu, values: Symbols) -> Parts:
    """RSM and KVM_SET_NESTED_STATE into L2 leave a merge waiting, the next VM entry performs it, and no other
    performs one: L2 then accesses the MSR directly exactly where neither bitmap intercepts."""
    before, waits = twin(vcpu), flag_term(vcpu.bitmap_merge_pending)
    if vcpu.level == 1 and values.flag("RSM"):
        vcpu.smm_left_level2, vcpu.init_pending = True, False
        vcpu.rsm()
        yield "RSM leaves one", truth(vcpu.bitmap_merge_pending is True)
        before, waits = twin(vcpu), truth(True)
    elif values.flag("KVM_SET_NESTED_STATE"):
        state = NestedState(
            level2=True, controls=any_controls(values, "new_l1"), vmx_operation=True, run_pending=False, smm=False,
            smm_left_level2=False, smm_left_vmx=False, init_pending=False)
        if attempt(lambda: vcpu.restore_nested(state)) is None:
            yield "KVM_SET_NESTED_STATE leaves one", truth(vcpu.bitmap_merge_pending is True)
        before, waits = twin(vcpu), flag_term(vcpu.bitmap_merge_pending)
    vcpu.run()
    yield "none waits", not_(flag_term(vcpu.bitmap_merge_pending))
    for name, write in (("reads", False), ("writes", True)):
        mine = flag_term(vcpu.vmcs01.intercept_write if write else vcpu.vmcs01.intercept_read)
        merged = iff(l2_direct(vcpu, write), not_(any_of(mine, l1_wants(vcpu.controls, IA32_SPEC_CTRL, write))))
        kept = iff(l2_direct(vcpu, write), l2_direct(before, write))
        yield name, when(waits, merged, kept) if vcpu.level == 2 else kept


@theorem(L1_KVM, rules=("nested.virtual-msrs.reflected",))
def virtual_msrs_of_l2_go_to_l1(vcpu: Vcpu, values: Symbols) -> Parts:
    """L1 intercepts every access of its L2 to the three virtual MSRs, whatever its bitmap says; one to IA32_SPEC_CTRL
    exactly if it has no bitmap or asks for the direction."""
    msr, write = choose(values, "msr", VIRTUAL), choose(values, "direction", (False, True))
    asks = Intercept(msr, values.flag("asks.read"), values.flag("asks.write"))
    controls = any_controls(values, "new_l1")
    yield "virtual", truth(l1_intercepts(replace(controls, intercepts=(asks, *controls.intercepts)), msr, write))
    wanted = l1_wants(controls, IA32_SPEC_CTRL, write)
    yield "IA32_SPEC_CTRL", iff(l1_intercepts(controls, IA32_SPEC_CTRL, write), wanted)


@theorem(L2_GUEST, rules=("nested.reflect",))
def what_l1_intercepts_becomes_an_exit(vcpu: Vcpu, values: Symbols) -> Parts:
    """A read or write of L2 that L1 intercepts becomes a VM exit to L1, and L1 runs, with no effect of the access; L1's
    VM-exit MSR-load list is performed, and one that fails is a VMX abort."""
    msr, value = choose(values, "msr", (IA32_SPEC_CTRL, MSR_VIRTUAL_MITIGATION_CTRL)), values.word("written")
    exit_value, write = values.word("l1.exit"), choose(values, "direction", (False, True))
    vcpu.controls = replace(vcpu.controls, exit_msr_load=((IA32_SPEC_CTRL, exit_value),))
    if msr == IA32_SPEC_CTRL:  # merged when L1 entered; no bitmap covers the other
        current().assume(all_of(l1_wants(vcpu.controls, IA32_SPEC_CTRL, write), not_(direct_on(vcpu, write))))
    before, takes = twin(vcpu), acceptable(vcpu, exit_value)
    seen = attempt(lambda: vcpu.wrmsr(msr, value) if write else vcpu.rdmsr(msr))
    yield "an exit to L1", iff(ends(seen, Reflected), takes)
    yield "or an abort", truth(ends(seen, Reflected) or ends(seen, VmxAbort))
    yield "L1", truth(vcpu.level == 1)
    yield "it runs", truth(vcpu.in_guest == ends(seen, Reflected))
    if ends(seen, Reflected):
        yield "the view", same(vcpu.guest_view, exit_value)
    yield "the report", same(vcpu.mitigation_ctrl, before.mitigation_ctrl)


@theorem(L1_KVM, rules=("nested.lists.fail-half", "nested.failed-entry.view", "msr-exit.lists-never-exit"))
def a_failed_entry_keeps_what_was_done(vcpu: Vcpu, values: Symbols) -> Parts:
    """When the second entry of L1's VM-entry MSR-load list is refused, for whatever reason and whatever userspace asked
    to see: the entry fails with its number, L1 goes on with the view that the first entry wrote or that L1's VM-exit
    MSR-load list wrote over it, and no access exits to userspace."""
    first, last = values.word("first"), values.word("last")
    bad = choose(values, "bad", (MSR_VIRTUAL_ENUMERATION, UNKNOWN_MSR))
    controls = any_controls(values, "new_l1")
    loads = bool(values.flag("exit list"))
    if loads:
        controls = replace(controls, exit_msr_load=((IA32_SPEC_CTRL, last),))
    takes_first, takes_last = acceptable(vcpu, first), acceptable(vcpu, last)
    before = twin(vcpu)
    seen = attempt(lambda: vcpu.nested_enter(controls, ((IA32_SPEC_CTRL, first), (bad, values.word("other")))))
    aborts = all_of(truth(loads), not_(takes_last))
    yield "an abort", iff(ends(seen, VmxAbort), aborts)
    yield "the second entry fails", iff(ends(seen, NestedEntryFailed, 2), all_of(not_(aborts), takes_first))
    yield "or the first", iff(ends(seen, NestedEntryFailed, 1), all_of(not_(aborts), not_(takes_first)))
    yield "L1", truth(vcpu.level == 1 and not vcpu.in_guest and vcpu.nested_run_pending is False)
    after_first = when(takes_first, same(vcpu.guest_view, first), same(vcpu.guest_view, before.guest_view))
    yield "the view", when(all_of(truth(loads), takes_last), same(vcpu.guest_view, last), after_first)
    yield "SHADOW", implies(flag_term(vcpu.cpu.has_control), same(vcpu.vmcs01.spec_ctrl_shadow, vcpu.guest_view))
    yield "the report", same(vcpu.mitigation_ctrl, before.mitigation_ctrl)


@theorem(L2_KVM, rules=("nested.lists.abort", "nested.lists.store-view", "msr-exit.lists-never-exit"))
def a_refused_exit_list_aborts(vcpu: Vcpu, values: Symbols) -> Parts:
    """A VM exit from L2 stores the guest's view and loads what L1's list says, as the guest's own accesses; if an entry
    of either list is refused it is a VMX abort, never an exit to userspace: the vCPU is shut down in L1 with KVM
    running.  Otherwise it is not shut down by it."""
    stores = (choose(values, "stored", (IA32_SPEC_CTRL, UNKNOWN_MSR)),)
    value, before = values.word("loaded"), twin(vcpu)
    kept = all_of(truth(stores[0] == IA32_SPEC_CTRL), filter_of(vcpu, stores[0], write=False),
                  flag_term(vcpu.cpuid.spec_ctrl))
    takes = acceptable(vcpu, value)
    seen = attempt(lambda: vcpu.nested_exit(stores, ((IA32_SPEC_CTRL, value),)))
    yield "an abort", iff(ends(seen, VmxAbort), not_(all_of(kept, takes)))
    yield "or what was stored", equal(tuple(seen), (before.guest_view,)) if isinstance(seen, list) else truth(
        ends(seen, VmxAbort))
    yield "shut down", iff(vcpu.shut_down, not_(all_of(kept, takes)))
    yield "L1, and KVM runs", truth(vcpu.level == 1 and not vcpu.in_guest)
    yield "the view", when(all_of(kept, takes), same(vcpu.guest_view, value), same(vcpu.guest_view, before.guest_view))


@theorem(L1_KVM, L2_KVM, rules=("nested.lists.abort",))
def a_vcpu_that_shut_down_runs_no_guest(vcpu: Vcpu, values: Symbols) -> Parts:
    """After a VM-exit MSR-load list that was refused every operation of the guest and every event is refused by the
    machine, and changes nothing; userspace's ioctls end and leave the same as of another vCPU, and a platform reset
    ends it."""
    yield "an abort", truth(ends(attempt(lambda: vcpu.perform_exit_load(((UNKNOWN_MSR, 0),))), VmxAbort))
    yield "it shuts down", truth(vcpu.shut_down is True)
    if vcpu.shut_down is not True:
        return
    if values.flag("an ioctl"):
        other = twin(vcpu)
        other.shut_down = False
        yield from same_ioctls(vcpu, other, values, "shut_down")
        yield "it stays so", truth(vcpu.shut_down is True)
        return
    machine, before = Machine(vcpu.host, record=False), twin(vcpu)
    machine.vcpus = {0: vcpu}
    steps: tuple[dict[str, Any], ...] = (
        {"op": "rdmsr", "msr": IA32_SPEC_CTRL}, {"op": "wrmsr", "msr": IA32_SPEC_CTRL, "value": 1}, {"op": "init"},
        {"op": "nested_enter"}, {"op": "nested_exit"}, {"op": "vmxoff"}, {"op": "smi"}, {"op": "rsm"}, {"op": "exit"})
    step = choose(values, "step", steps)
    try:
        machine.perform(step)
    except Misuse:
        yield "it is refused", truth(True)
    else:
        yield "it is refused", truth(False)
    yield "nothing changes", unchanged(vcpu, before, "vm")
    yield "KVM_SET_MSRS", truth(vcpu.set_msrs(((MSR_VIRTUAL_MITIGATION_CTRL, 0),)) == 1)
    machine.reset_vcpu()
    yield "after the reset", not_(flag_term(vcpu.shut_down))


# ---- SMM, saved state, INIT


@theorem(L1_KVM, L2_KVM, L1_GUEST, L2_GUEST, rules=(
    "nested.smi.view", "nested.smi.no-lists", "nested.set-state.no-lists", "migration.nested-state.no-msrs",
))
def no_list_for_smm_or_saved_state(vcpu: Vcpu, values: Symbols) -> Parts:
    """SMI, RSM and KVM_SET_NESTED_STATE perform no MSR list of L1: view, report, pair and the pair in force stay,
    whatever lists L1 gave and wherever the vCPU was, and where they load vmcs02 or vmcs01 that VMCS has the view."""
    exit_guest_first = twin(vcpu)
    exit_guest_first.exit_guest()
    before = words_of(exit_guest_first)
    vcpu.controls = listed(values, "l1")
    match choose(values, "event", ("SMI", "RSM", "state")):
        case "SMI":
            vcpu.smi()
        case "RSM":
            vcpu.init_pending = False
            vcpu.rsm()
        case _:
            level2 = bool(values.flag("state.level2"))
            attempt(lambda: vcpu.restore_nested(NestedState(
                vmx_operation=values.flag("state.vmx_operation"), level2=level2, controls=listed(values, "new_l1"),
                run_pending=values.flag("state.run_pending"), smm=values.flag("state.smm"),
                smm_left_level2=values.flag("state.smm_left_level2"), smm_left_vmx=values.flag("state.smm_left_vmx"),
                init_pending=values.flag("state.init_pending"))))
    yield "the words", equal(words_of(vcpu), before)
    yield "SHADOW", implies(flag_term(vcpu.cpu.has_control), all_of(
        same(vcpu.vmcs.spec_ctrl_shadow, vcpu.guest_view), same(vcpu.vmcs.spec_ctrl_mask, vcpu.force_mask)))


@theorem(L1_KVM, L2_KVM, rules=("migration.nested-state.no-msrs",))
def nested_state_holds_no_word(vcpu: Vcpu, values: Symbols) -> Parts:
    """KVM_GET_NESTED_STATE gives the level, L1's controls with its MSR lists, and what is pending or was left, as they
    are; the same for two vCPUs that differ in view, report and force alone; and it changes nothing.
    KVM_SET_NESTED_STATE of what it gave, on a vCPU in any mode, gives that one the same mode."""
    vcpu.controls = listed(values, "l1")
    before, other, target = twin(vcpu), twin(vcpu), twin(vcpu)
    for name in ("guest_view", "saved", "mitigation_ctrl", "user_mask", "user_value", "force_mask", "force_value"):
        setattr(other, name, values.word(f"other.{name}"))
    state = vcpu.save_nested()
    yield "the same", equal(state, other.save_nested())
    for name in ("vmx_operation", "controls", "smm", "smm_left_level2", "smm_left_vmx", "init_pending"):
        yield name, equal(getattr(state, name), getattr(before, name))
    yield "level and pending entry", all_of(
        truth(state.level2 == (before.level == 2)), equal(state.run_pending, before.nested_run_pending))
    yield "nothing changes", unchanged(vcpu, before, "vm")
    current().assume(any_of(flag_term(vcpu.host.nested), not_(any_of(
        flag_term(vcpu.vmx_operation), flag_term(vcpu.smm_left_vmx)))))
    target.controls = listed(values, "other")
    for name in ("vmx_operation", "nested_run_pending", "smm", "smm_left_level2", "smm_left_vmx", "init_pending"):
        setattr(target, name, values.flag(f"other.{name}"))
    target.load_vmcs(choose(values, "other.loaded", list(Loaded)))
    yield "it is taken", truth(attempt(lambda: target.restore_nested(state)) is None)
    yield "the mode", equal(target.save_nested(), state)


@theorem(L1_KVM, L2_KVM, L1_GUEST, L2_GUEST, rules=(
    "nested.init.reflected", "nested.init.blocked", "nested.init.delivered",
))
def init_waits_where_it_is_blocked(vcpu: Vcpu, values: Symbols) -> Parts:
    """An INIT in SMM, or in L1 in VMX operation, stays pending and changes nothing else that KVM keeps; one in L2 goes
    to L1, leaves none pending and resets nothing; elsewhere view and, under the assumption, report are reset at once.
    A pending one takes effect at the VMXOFF or RSM that ends what blocked it, and not before; at a VM entry of L1 that
    succeeds it goes to L1, which uses it up, and resets nothing."""
    settled_ = twin(vcpu)
    settled_.exit_guest()
    event = choose(values, "event", ("INIT", "VMXOFF", "RSM", "VMLAUNCH"))
    blocked = any_of(flag_term(vcpu.smm), all_of(truth(vcpu.level == 1), flag_term(vcpu.vmx_operation)))
    if event == "INIT":
        level2 = vcpu.level == 2
        seen = attempt(vcpu.init)
        yield "it is blocked", iff(ends(seen, Blocked), blocked)
        yield "it goes to L1", iff(ends(seen, Reflected), all_of(truth(level2), not_(blocked)))
        if ends(seen, Blocked):
            yield "it waits", truth(vcpu.init_pending is True)
            yield "nothing else", unchanged(vcpu, settled_, "vm", "init_pending")
        elif ends(seen, Reflected):
            yield "nothing is reset", equal(words_of(vcpu), words_of(settled_))
            yield "no other is pending", truth(vcpu.init_pending is False)
        else:
            yield "none is pending", truth(vcpu.init_pending is False)
            yield "the view", same(vcpu.guest_view, 0)
        return
    if vcpu.level == 2:
        return
    pending = flag_term(vcpu.init_pending)
    if event == "VMLAUNCH":
        current().assume(not_(flag_term(vcpu.smm)))
        seen = attempt(lambda: vcpu.vmlaunch(any_controls(values, "new_l1"), ()))
        yield "VMLAUNCH: it goes to L1", iff(ends(seen, Reflected), pending)
        yield "VMLAUNCH: the level", truth(vcpu.level == (1 if ends(seen, Reflected) else 2))
        yield "VMLAUNCH: none is pending", not_(flag_term(vcpu.init_pending))
        vcpu.exit_guest()
        yield "VMLAUNCH: nothing is reset", equal(words_of(vcpu), words_of(settled_))
        return
    if event == "VMXOFF":
        current().assume(not_(flag_term(vcpu.smm)))
        vcpu.vmxoff()
        takes = pending
    else:
        current().assume(not_(flag_term(vcpu.smm_left_level2)))
        takes = all_of(pending, not_(flag_term(vcpu.smm_left_vmx)))
        vcpu.rsm()
    yield f"{event}: pending", iff(vcpu.init_pending, all_of(pending, not_(takes)))
    yield f"{event}: the view", when(takes, same(vcpu.guest_view, 0), same(vcpu.guest_view, settled_.guest_view))
    kept = any_of(not_(takes), not_(flag_term(vcpu.init_withdraws_report)))
    yield f"{event}: the report", when(
        kept, same(vcpu.mitigation_ctrl, settled_.mitigation_ctrl), same(vcpu.mitigation_ctrl, 0))
