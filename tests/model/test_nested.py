"""L1's VM entries and exits, its MSR lists, saved nested state."""

import errno

import pytest

from helpers import BIT_63, GP, MC, ME, SC, SPR, VE, machine, outcome, seen
from specctrl.model.contract import Intercept, L1Controls
from specctrl.model.kvm.nested import l1_intercepts
from specctrl.model.kvm.state import Loaded, NestedState
from specctrl.model.outcomes import NestedEntryFailed, Reflected, VmxAbort
from specctrl.model.parts import resolve_host
from specctrl.model.registers import MSR_NUMBERS

FAILED = {"reason": "MSR_LOAD_FAIL", "entry": 1}


class TestL1Intercepts:
    """Which accesses of L2 go to L1."""

    @pytest.mark.parametrize("write", [False, True])
    def test_without_a_bitmap_all_of_them(self, write):
        assert l1_intercepts(L1Controls(use_msr_bitmap=False), 0x48, write)

    @pytest.mark.parametrize(
        ("msr", "expected"),
        [(0, False), (0x1FFF, False), (0x2000, True), (0xBFFFFFFF, True), (0xC0000000, False), (0xC0001FFF, False),
         (0xC0002000, True), (0x50000000, True), (0x50000001, True), (0x50000002, True)],
    )
    def test_what_no_bitmap_covers_does(self, msr, expected):
        assert expected is l1_intercepts(L1Controls(), msr, write=False)
        assert expected is l1_intercepts(L1Controls(), msr, write=True)

    @pytest.mark.parametrize(("read", "write"), [(True, False), (False, True), (True, True), (False, False)])
    def test_each_direction_by_itself(self, read, write):
        controls = L1Controls(intercepts=(Intercept(0x10A), Intercept(0x48, read, write)))
        assert (read, write) == (l1_intercepts(controls, 0x48, False), l1_intercepts(controls, 0x48, True))

    def test_an_entry_of_another_msr_says_nothing(self):
        assert not l1_intercepts(L1Controls(intercepts=(Intercept(0x10A),)), 0x48, write=True)


class TestMergeBitmap:
    """vmcs02 intercepts what vmcs01 or L1 intercepts."""

    @pytest.mark.parametrize("l0", [False, True])
    @pytest.mark.parametrize("l1", [False, True])
    def test_either_is_enough_in_each_direction(self, l0, l1):
        target = machine().vcpus[0]
        target.vmcs01.intercept_read, target.vmcs01.intercept_write = l0, False
        target.controls = L1Controls(intercepts=(Intercept(0x48, read=l1, write=False),))
        target.merge_bitmap()
        assert (l0 or l1, False) == (target.vmcs02.intercept_read, target.vmcs02.intercept_write)
        target.vmcs01.intercept_read, target.vmcs01.intercept_write = False, l0
        target.controls = L1Controls(intercepts=(Intercept(0x48, read=False, write=l1),))
        target.merge_bitmap()
        assert (False, l0 or l1) == (target.vmcs02.intercept_read, target.vmcs02.intercept_write)


class TestRun:
    """KVM_RUN merges a bitmap that waits, once."""

    def test_a_waiting_merge_is_done_before_l2_runs(self):
        target = machine().vcpus[0]
        target.load_vmcs(Loaded.VMCS02)
        target.vmcs01.intercept_read = target.vmcs01.intercept_write = False
        target.bitmap_merge_pending = True
        target.run()
        assert (False, False, False) == (
            target.bitmap_merge_pending, target.vmcs02.intercept_read, target.vmcs02.intercept_write)
        target.vmcs01.intercept_write = True
        target.run()
        assert False is target.vmcs02.intercept_write

    def test_back_at_l1_nothing_is_merged(self):
        target = machine().vcpus[0]
        target.vmcs01.intercept_write = False
        target.bitmap_merge_pending = True
        target.run()
        assert (False, True) == (target.bitmap_merge_pending, target.vmcs02.intercept_write)


class TestNestedEnter:
    """L1's VMLAUNCH or VMRESUME."""

    def test_the_list_is_performed_with_vmcs02_loaded(self):
        target = machine(mask=0x404, value=0x400).vcpus[0]
        target.nested_enter(L1Controls(), ((0x48, 0x5),))
        assert (2, True, True) == (target.level, target.vmx_operation, target.nested_run_pending)
        assert (0x5, 0x5, 0x401, 0) == (
            target.guest_view, target.vmcs02.spec_ctrl_shadow, target.saved, target.vmcs01.spec_ctrl_shadow)

    def test_the_bitmap_is_merged_before_the_list(self):
        target = machine().vcpus[0]
        target.nested_enter(L1Controls(), ((0x48, 0x1),))
        assert (False, True) == (target.vmcs01.intercept_write, target.vmcs02.intercept_write)

    def test_the_failing_entry_is_counted_from_1_and_what_was_done_stays(self):
        target = machine().vcpus[0]
        failed = outcome(target.nested_enter, L1Controls(), ((0x48, 1), (0x48, 5), (0x48, 0x800), (0x48, 2)))
        assert isinstance(failed, NestedEntryFailed)
        assert (3, 1, False) == (failed.entry, target.level, target.nested_run_pending)
        assert (5, 5, 5) == (target.guest_view, target.vmcs01.spec_ctrl_shadow, target.saved)

    def test_the_exit_load_list_runs_after_a_failure_and_may_abort(self):
        target = machine().vcpus[0]
        controls = L1Controls(exit_msr_store=(0x1234,), exit_msr_load=((0x48, 4), (0x1234, 0)))
        assert isinstance(outcome(target.nested_enter, controls, ((0x1234, 0),)), VmxAbort)
        assert (4, True, True) == (target.guest_view, target.shut_down, target.vmx_operation)


class TestNestedExit:
    """A VM exit from L2 to L1."""

    def test_store_then_vmcs01_then_load(self):
        target = machine(mask=0x400, value=0x400).vcpus[0]
        target.nested_enter(L1Controls(), ((0x48, 1),))
        assert [1] == target.nested_exit((0x48,), ((0x48, 5),))
        assert (1, 5, 5, 1) == (
            target.level, target.guest_view, target.vmcs01.spec_ctrl_shadow, target.vmcs02.spec_ctrl_shadow)

    def test_a_refused_store_shuts_down_without_loading(self):
        target = machine().vcpus[0]
        target.nested_enter(L1Controls(), ((0x48, 1),))
        assert isinstance(outcome(target.nested_exit, (0x48, 0x1234), ((0x48, 5),)), VmxAbort)
        assert (1, 1, 1, True) == (target.level, target.guest_view, target.vmcs01.spec_ctrl_shadow, target.shut_down)

    def test_a_refused_load_shuts_down_after_what_came_before(self):
        target = machine().vcpus[0]
        target.nested_enter(L1Controls(), ())
        assert isinstance(outcome(target.nested_exit, (), ((0x48, 5), (MSR_NUMBERS[VE], 1), (0x48, 2))), VmxAbort)
        assert (1, 5, True) == (target.level, target.guest_view, target.shut_down)


class TestReflect:
    """An exit that L1 asked for."""

    def test_it_performs_the_lists_that_l1_gave_at_entry(self):
        target = machine().vcpus[0]
        target.nested_enter(L1Controls(exit_msr_store=(0x48,), exit_msr_load=((0x48, 4),)), ())
        assert isinstance(outcome(target.reflect), Reflected)
        assert (1, 4) == (target.level, target.guest_view)


class TestLeaveNested:
    """Forced back to L1."""

    def test_no_list_is_performed(self):
        target = machine().vcpus[0]
        target.nested_enter(L1Controls(exit_msr_load=((0x48, 4),)), ((0x48, 1),))
        target.leave_nested()
        assert (1, 1, 1, False) == (
            target.level, target.guest_view, target.vmcs01.spec_ctrl_shadow, target.nested_run_pending)

    def test_at_l1_nothing_happens(self):
        target = machine().vcpus[0]
        target.guest_view = 5
        target.leave_nested()
        assert (1, 0) == (target.level, target.vmcs01.spec_ctrl_shadow)


class TestNestedState:
    """KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE."""

    def test_what_is_saved_is_what_is_restored(self):
        state = NestedState(
            vmx_operation=True, level2=True, controls=L1Controls(exit_msr_load=((0x48, 4),)), run_pending=True,
            smm=False, smm_left_level2=False, smm_left_vmx=False, init_pending=False)
        target = machine().vcpus[0]
        target.set_nested_state(state)
        assert state == target.get_nested_state()

    def test_smm_and_a_pending_init_come_along(self):
        state = NestedState(
            vmx_operation=False, level2=False, controls=L1Controls(), run_pending=False,
            smm=True, smm_left_level2=True, smm_left_vmx=True, init_pending=True)
        target = machine().vcpus[0]
        target.set_nested_state(state)
        assert (state, 1) == (target.get_nested_state(), target.level)

    def test_a_state_at_l1_leaves_l2(self):
        target = machine().vcpus[0]
        before = target.get_nested_state()
        target.nested_enter(L1Controls(exit_msr_load=((0x48, 4),)), ((0x48, 1),))
        target.set_nested_state(before)
        assert (1, 1, False, before) == (
            target.level, target.vmcs01.spec_ctrl_shadow, target.bitmap_merge_pending, target.get_nested_state())

    @pytest.mark.parametrize("pending", [False, True])
    def test_l2_gets_mask_and_view_that_hold_now(self, pending):
        target = machine(mask=0x400, value=0x400).vcpus[0]
        target.write_spec_ctrl(5)
        target.set_nested_state(NestedState(True, True, L1Controls(), pending, False, False, False, False))
        assert (2, 5, 0x400, True) == (
            target.level, target.vmcs02.spec_ctrl_shadow, target.vmcs02.spec_ctrl_mask, target.bitmap_merge_pending)
        assert pending is target.nested_run_pending

    @pytest.mark.parametrize(
        ("nested", "vmx", "level2", "pending"),
        [
            (False, True, False, False), (False, True, True, False),
            (True, True, False, True), (True, False, False, True),
        ],
    )
    def test_vmx_state_without_nesting_and_a_pending_entry_at_l1_are_einval(self, nested, vmx, level2, pending):
        target = machine(resolve_host({"part": "sapphire-rapids", "nested": nested})).vcpus[0]
        before = target.get_nested_state()
        state = NestedState(vmx, level2, L1Controls(), pending, True, False, False, False)
        assert errno.EINVAL == outcome(target.set_nested_state, state).number
        assert before == target.get_nested_state()

    @pytest.mark.parametrize("left_level2", [True, False])
    def test_vmx_state_that_an_smi_left_is_einval_too_without_nesting(self, left_level2):
        target = machine(resolve_host({"part": "sapphire-rapids", "nested": False})).vcpus[0]
        before = target.get_nested_state()
        state = NestedState(False, False, L1Controls(), False, True, left_level2, True, False)
        assert errno.EINVAL == outcome(target.set_nested_state, state).number
        assert before == target.get_nested_state()

    def test_without_nesting_an_empty_state_is_saved_and_restored(self):
        target = machine(resolve_host({"part": "sapphire-rapids", "nested": False})).vcpus[0]
        target.smm = True
        state = target.get_nested_state()
        target.smm = False
        target.set_nested_state(state)
        assert True is target.smm


class TestOneView:
    """L1 and L2 share one view, whatever the way between them."""

    @pytest.mark.parametrize("host", ["sapphire-rapids", "ice-lake-server"])
    @pytest.mark.parametrize("first", [0, 1])
    def test_there_and_back(self, host, first):
        made = machine(resolve_host(host))
        made.wrmsr(msr=SC, value=first)
        made.nested_enter()
        assert {"value": first} == made.rdmsr(msr=SC)
        made.wrmsr(msr=SC, value=6)
        made.smi()
        assert {"value": 6} == made.rdmsr(msr=SC)
        made.wrmsr(msr=SC, value=3)
        made.rsm()
        assert {"value": 3} == made.rdmsr(msr=SC)
        assert {"stored": [3]} == made.nested_exit(msr_store=[SC])
        assert {"value": 3} == made.rdmsr(msr=SC)

    def test_a_masked_reserved_bit_survives_every_way(self):
        made = machine(mask=BIT_63)
        made.wrmsr(msr=SC, value=BIT_63 | 1)
        made.nested_enter(msr_load=[(SC, BIT_63 | 2)])
        assert {"value": BIT_63 | 2} == made.rdmsr(msr=SC)
        made.nested_exit(msr_load=[(SC, BIT_63 | 4)])
        assert {"value": BIT_63 | 4} == made.rdmsr(msr=SC)
        assert {"effective": 4} == seen(made, "effective")

    def test_a_failing_list_leaves_a_report_in_force(self):
        made = machine(offer=True)
        assert {"fail": {**FAILED, "entry": 2}} == made.nested_enter(msr_load=[(MC, 1), (ME, 0)])
        made.wrmsr(msr=SC, value=1)
        assert {"host_spec_ctrl": 0x401} == made.exit()
        assert {"effective": 0x401, "mask": 0x400} == seen(made, "effective", "mask")
        assert GP == made.wrmsr(msr=MC, value=4)
        assert SPR is made.host

    def test_an_abort_leaves_no_entry_pending(self):
        made = machine()
        made.nested_enter()
        made.nested_exit(msr_store=[MC])
        assert made.vcpus[0].shut_down
        assert not made.vcpus[0].nested_run_pending

    def test_a_state_saved_in_smm_knows_whether_l1_was_in_vmx_operation(self):
        target = machine().vcpus[0]
        target.vmx_operation = True
        target.smi()
        state = target.get_nested_state()
        assert (False, True) == (state.smm_left_level2, state.smm_left_vmx)
        other = machine().vcpus[0]
        other.set_nested_state(state)
        assert (False, True) == (other.smm_left_level2, other.smm_left_vmx)
        other.rsm()
        assert other.vmx_operation

    def test_an_abort_before_l2_ran_leaves_no_entry_pending_either(self):
        target = machine().vcpus[0]
        controls = L1Controls(exit_msr_store=(MSR_NUMBERS[MC],))
        target.set_nested_state(NestedState(True, True, controls, True, False, False, False, False))
        assert isinstance(outcome(target.init), VmxAbort)
        assert not target.nested_run_pending
