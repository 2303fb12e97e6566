"""The vCPU fd, the guest's instructions, INIT, SMI, reset."""

import errno

import pytest

from helpers import (
    AC,
    BIT_63,
    EXITS,
    FORCE,
    GP,
    ICE_LAKE,
    MC,
    ME,
    SC,
    SPR,
    SPR_WITHOUT_CONTROL,
    VE,
    WITHOUT_MSR,
    machine,
    outcome,
    seen,
)
from specctrl.model.contract import L1Controls
from specctrl.model.kvm.filters import FilterRange, MsrFilter
from specctrl.model.kvm.state import Loaded, NestedState
from specctrl.model.outcomes import VmxAbort
from specctrl.model.parts import resolve_host

FILTERED = [{"base": 0x48, "count": 1, "read": True, "write": True, "allow": [False]}]


class TestPowerOn:
    """A new vCPU."""

    @pytest.mark.parametrize("which", list(Loaded))
    def test_both_vmcss_have_the_control_and_the_msr_intercepted(self, which):
        target = machine(mask=0x404, value=0x400).vcpus[0]
        vmcs = target.vmcs01 if which is Loaded.VMCS01 else target.vmcs02
        assert (True, True, True, True) == (
            vmcs.virtualize_spec_ctrl, vmcs.intercept_read, vmcs.intercept_write, vmcs.use_msr_bitmap)

    def test_the_vms_pair_is_in_force_and_the_view_is_0(self):
        made = machine(mask=0x404, value=0x400)
        expected = {
            "effective": 0x400, "guest_view": 0, "mask": 0x404, "shadow": 0, "saved": 0x400, "intercepted": True}
        assert expected == seen(made, *expected)

    def test_without_the_control_neither_vmcs_has_it(self):
        target = machine(ICE_LAKE).vcpus[0]
        assert (False, False) == (target.vmcs01.virtualize_spec_ctrl, target.vmcs02.virtualize_spec_ctrl)

    def test_the_virtual_msrs_are_0_and_bit_63_is_set(self):
        expected = {"ret": 4, "values": [BIT_63 | 0x80000, 0, 0, 0]}
        assert expected == machine().get_msrs(msrs=[AC, VE, ME, MC])


class TestInit:
    """INIT, then SIPI."""

    @pytest.mark.parametrize("host", [SPR, SPR_WITHOUT_CONTROL])
    @pytest.mark.parametrize(("withdraws", "report", "effective"), [(True, 0, 0), (False, 1, 0x400)])
    def test_view_0_and_the_report_as_assumed(self, host, withdraws, report, effective):
        made = machine(host, offer=True, assume={"init-withdraws-report": withdraws})
        made.wrmsr(msr=SC, value=5)
        made.wrmsr(msr=MC, value=1)
        assert {} == made.init()
        assert {"value": 0} == made.rdmsr(msr=SC)
        assert {"value": report} == made.rdmsr(msr=MC)
        assert {"effective": effective, "saved": effective} == seen(made, "effective", "saved")

    @pytest.mark.parametrize("first", [0, 1])
    def test_the_interception_stays_as_it_was(self, first):
        made = machine(mask=0x4)
        made.wrmsr(msr=SC, value=first)
        made.init()
        assert {"intercepted": not first, "mask": 4, "shadow": 0} == seen(made, "intercepted", "mask", "shadow")

    def test_in_l2_it_goes_to_l1(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.nested_enter(exit_msr_load=[(SC, 4)])
        assert {"reflected": True} == made.init()
        assert {"value": 4} == made.rdmsr(msr=SC)
        made.vmxoff()
        assert {"value": 4} == made.rdmsr(msr=SC)

    def test_in_vmx_operation_it_waits_for_vmxoff(self):
        made = machine(offer=True)
        made.wrmsr(msr=SC, value=1)
        made.wrmsr(msr=MC, value=1)
        made.nested_enter()
        made.nested_exit()
        assert {"blocked": True} == made.init()
        assert {"value": 1} == made.rdmsr(msr=SC)
        made.vmxoff()
        assert ({"value": 0}, {"value": 0}) == (made.rdmsr(msr=SC), made.rdmsr(msr=MC))
        made.wrmsr(msr=SC, value=1)
        made.nested_enter()
        made.nested_exit()
        made.vmxoff()
        assert {"value": 1} == made.rdmsr(msr=SC)

    def test_in_vmx_operation_it_goes_to_l1_at_the_next_entry(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.nested_enter()
        made.nested_exit()
        assert {"blocked": True} == made.init()
        assert {"reflected": True} == made.nested_enter(msr_load=[(SC, 5)], exit_msr_load=[(SC, 4)])
        assert ({"level": 1}, {"value": 4}) == (seen(made, "level"), made.rdmsr(msr=SC))
        assert made.vcpus[0].in_guest
        made.vmxoff()
        assert {"value": 4} == made.rdmsr(msr=SC)

    def test_an_entry_that_fails_leaves_it_pending(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.nested_enter()
        made.nested_exit()
        assert {"blocked": True} == made.init()
        assert {"fail": {"reason": "MSR_LOAD_FAIL", "entry": 1}} == made.nested_enter(msr_load=[(0x1234, 0)])
        made.vmxoff()
        assert {"value": 0} == made.rdmsr(msr=SC)

    def test_at_an_entry_it_aborts_if_the_exit_list_fails(self):
        made = machine()
        made.nested_enter()
        made.nested_exit()
        assert {"blocked": True} == made.init()
        assert {"abort": True} == made.nested_enter(exit_msr_load=[(0x1234, 0)])
        assert not made.vcpus[0].in_guest

    def test_in_smm_it_waits_for_rsm(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.smi()
        assert {"blocked": True} == made.init()
        made.rsm()
        assert {"value": 0} == made.rdmsr(msr=SC)
        made.wrmsr(msr=SC, value=1)
        made.smi()
        made.rsm()
        assert {"value": 1} == made.rdmsr(msr=SC)

    def test_after_rsm_to_vmx_operation_it_waits_on(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.nested_enter()
        made.nested_exit()
        made.smi()
        assert {"blocked": True} == made.init()
        made.rsm()
        assert {"value": 1} == made.rdmsr(msr=SC)
        made.vmxoff()
        assert {"value": 0} == made.rdmsr(msr=SC)

    def test_after_rsm_to_l2_it_goes_to_l1_and_is_gone(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.nested_enter()
        made.smi()
        assert {"blocked": True} == made.init()
        made.rsm()
        assert {"level": 1, "smm": False} == seen(made, "level", "smm")
        made.vmxoff()
        assert {"value": 1} == made.rdmsr(msr=SC)


class TestPlatformReset:
    """A reset by userspace."""

    def test_it_leaves_everything_and_writes_the_two_msrs(self):
        made = machine(mask=4, value=4, offer=True)
        made.wrmsr(msr=SC, value=1)
        made.wrmsr(msr=MC, value=3)
        made.nested_enter()
        made.smi()
        made.init()
        assert {"ret": 0} == made.reset_vcpu()
        assert {"level": 1, "smm": False, "effective": 4, "guest_view": 0, "mask": 4} == seen(
            made, "level", "smm", "effective", "guest_view", "mask")
        assert {"ret": 4, "values": [BIT_63 | 0x80000, 1, 3, 0]} == made.get_msrs(msrs=[AC, VE, ME, MC])
        made.wrmsr(msr=SC, value=5)
        made.smi()
        made.rsm()
        assert ({"level": 1}, {"value": 5}) == (seen(made, "level"), made.rdmsr(msr=SC))
        assert {} == made.init()

    def test_it_leaves_vmx_operation(self):
        made = machine()
        made.nested_enter()
        made.nested_exit()
        made.smi()
        made.reset_vcpu()
        made.smi()
        made.rsm()
        assert {} == made.init()

    def test_a_pending_init_is_gone(self):
        made = machine()
        made.smi()
        made.init()
        made.reset_vcpu()
        made.wrmsr(msr=SC, value=5)
        made.smi()
        made.rsm()
        assert {"value": 5} == made.rdmsr(msr=SC)

    def test_it_revives_a_vcpu_that_shut_down(self):
        made = machine()
        made.nested_enter()
        assert {"abort": True} == made.nested_exit(msr_store=[0x1234])
        made.reset_vcpu()
        assert {"value": 0} == made.rdmsr(msr=SC)

    def test_without_the_msr_only_the_report_is_written(self):
        made = machine(WITHOUT_MSR)
        made.set_msrs(msrs=[(MC, 1)])
        assert {"ret": 0} == made.reset_vcpu()
        assert {"ret": 1, "values": [0]} == made.get_msrs(msrs=[MC])


class TestEnableCap:
    """KVM_ENABLE_CAP on the vCPU fd."""

    @pytest.mark.parametrize(
        ("capability", "flags", "mask", "value"),
        [(236, 1, 4, 0), (188, 0, 0, 0), (9999, 0, 0, 0), (236, 0, 4, 0x400), (236, 0, 0x80, 0x80)],
    )
    def test_what_is_refused_changes_nothing(self, capability, flags, mask, value):
        target = machine(mask=0x400, value=0x400).vcpus[0]
        assert errno.EINVAL == outcome(target.enable_cap, capability, flags, mask, value).number
        assert (0x400, 0x400) == (target.user_mask, target.force_mask)

    def test_the_guest_is_out_before_the_pair_changes(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.wrmsr(msr=SC, value=5)
        made.enable_cap(fd="vcpu", cap=FORCE, args=[0x404, 0x400])
        assert {"effective": 0x401, "guest_view": 5} == seen(made, "effective", "guest_view")


class TestGetSetMsrs:
    """KVM_GET_MSRS and KVM_SET_MSRS."""

    def test_both_stop_at_the_first_refusal_and_count(self):
        target = machine().vcpus[0]
        assert 2 == target.set_msrs(((0x48, 1), (0x10A, 0), (0x48, 0x800), (0x48, 5)))
        assert [1, 0] == target.get_msrs((0x48, 0x10A, 0x1234, 0x48))
        assert (0, []) == (target.set_msrs(((0x1234, 0),)), target.get_msrs((0x1234,)))
        assert (0, []) == (target.set_msrs(()), target.get_msrs(()))

    def test_they_see_what_the_guest_wrote_without_an_exit(self):
        made = machine(mask=0x400, value=0x400)
        made.wrmsr(msr=SC, value=1)
        made.wrmsr(msr=SC, value=5)
        assert {"ret": 1, "values": [5]} == made.get_msrs(msrs=[SC])
        made.wrmsr(msr=SC, value=4)
        made.set_msrs(msrs=[(MC, 0)])
        assert {"value": 4} == made.rdmsr(msr=SC)


class TestSaveRestoreNested:
    """The nested-state ioctls take the guest out first."""

    def test_the_view_of_a_running_guest_is_not_lost(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.nested_enter()
        made.wrmsr(msr=SC, value=5)
        made.get_nested_state(state="l2")
        assert {"saved": 5, "level": 2} == seen(made, "saved", "level")
        made.wrmsr(msr=SC, value=6)
        made.set_nested_state(state="l2")
        assert {"value": 6} == made.rdmsr(msr=SC)


class TestRdmsrWrmsr:
    """The guest's instructions."""

    def test_another_msr_never_reads_the_register(self):
        made = machine(offer=True)
        made.wrmsr(msr=SC, value=1)
        assert ({"value": 1}, {}) == (made.rdmsr(msr=VE), made.wrmsr(msr=MC, value=0))
        assert {"value": 1} == made.rdmsr(msr=SC)

    def test_after_an_emulated_access_the_guest_runs(self):
        made = machine()
        made.rdmsr(msr=SC)
        assert made.vcpus[0].in_guest
        for value, answer in ((0, {}), (0x800, GP)):
            made.get_msrs(msrs=[])
            assert (False, answer, True) == (
                made.vcpus[0].in_guest, made.wrmsr(msr=SC, value=value), made.vcpus[0].in_guest)

    @pytest.mark.parametrize("intercept", ["all", [SC]])
    def test_what_l1_intercepts_is_reflected_before_l0_looks_at_it(self, intercept):
        made = machine()
        made.enable_cap(cap=EXITS, args=[7])
        made.set_msr_filter(ranges=FILTERED)
        made.nested_enter(intercept=intercept)
        assert {"reflected": True} == made.wrmsr(msr=SC, value=1)
        assert ({"level": 1}, True) == (seen(made, "level"), made.vcpus[0].in_guest)
        made.nested_enter(intercept=intercept)
        assert {"reflected": True} == made.rdmsr(msr=SC)

    def test_l1s_bitmap_of_an_earlier_entry_does_not_bind_l1(self):
        made = machine()
        made.nested_enter(intercept=[SC])
        made.nested_exit()
        assert ({}, {"value": 0}) == (made.wrmsr(msr=SC, value=0), made.rdmsr(msr=SC))

    def test_a_reflected_exit_whose_list_fails_shuts_the_vcpu_down(self):
        made = machine()
        made.nested_enter(intercept=[SC], exit_msr_load=[(0x1234, 0)])
        assert {"abort": True} == made.wrmsr(msr=SC, value=1)
        assert (True, False) == (made.vcpus[0].shut_down, made.vcpus[0].in_guest)


class TestHandOver:
    """A refused access: userspace or #GP."""

    @pytest.mark.parametrize(
        ("bit", "msr", "reason"), [(1, VE, "INVAL"), (2, 0x1234, "UNKNOWN"), (4, SC, "FILTER")])
    def test_exactly_the_enabled_reason_exits(self, bit, msr, reason):
        for enabled in range(8):
            made = machine()
            made.enable_cap(cap=EXITS, args=[enabled])
            made.set_msr_filter(ranges=FILTERED)
            answer = made.wrmsr(msr=msr, value=0)
            if enabled & bit:
                assert {"kind": "wrmsr", "reason": reason}.items() <= answer["exit"].items()
                assert not made.vcpus[0].in_guest
            else:
                assert (GP, True) == (answer, made.vcpus[0].in_guest)


class TestReply:
    """Userspace answers."""

    def test_rdmsr_yields_the_value_wrmsr_nothing_and_an_error_faults(self):
        made = machine()
        made.enable_cap(cap=EXITS, args=[2])
        made.rdmsr(msr=0x1234)
        assert {"value": 0xABC} == made.reply_msr_exit(value=0xABC)
        made.wrmsr(msr=0x1234, value=7)
        assert {} == made.reply_msr_exit(error=False)
        made.rdmsr(msr=0x1234)
        assert GP == made.reply_msr_exit(error=True)
        assert (None, True) == (made.vcpus[0].pending_exit, made.vcpus[0].in_guest)


class TestVmlaunchVmcall:
    """L1's VMX instructions take an exit first, and the guest runs after them."""

    @pytest.mark.parametrize("load", [[], [(0x1234, 0)]])
    def test_the_running_view_goes_along(self, load):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.wrmsr(msr=SC, value=5)
        made.nested_enter(msr_load=load)
        assert True is made.vcpus[0].in_guest
        assert {"value": 5} == made.rdmsr(msr=SC)

    def test_the_view_that_l2_left_goes_back(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.nested_enter()
        made.wrmsr(msr=SC, value=5)
        made.nested_exit()
        assert ({"value": 5}, True) == (made.rdmsr(msr=SC), made.vcpus[0].in_guest)

    def test_an_aborted_entry_does_not_run(self):
        made = machine()
        assert {"abort": True} == made.nested_enter(msr_load=[(0x1234, 0)], exit_msr_load=[(0x1234, 0)])
        assert False is made.vcpus[0].in_guest


class TestVmxoff:
    """L1 leaves VMX operation."""

    def test_without_a_pending_init_the_view_stays(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.nested_enter()
        made.wrmsr(msr=SC, value=5)
        made.nested_exit()
        made.wrmsr(msr=SC, value=4)
        made.vmxoff()
        assert ({"value": 4}, {}) == (made.rdmsr(msr=SC), made.init())


class TestSmiRsm:
    """SMM."""

    @pytest.mark.parametrize("nested", [False, True])
    def test_where_the_smi_came_rsm_goes(self, nested):
        made = machine()
        if nested:
            made.nested_enter()
        made.smi()
        assert {"smm": True, "level": 1} == seen(made, "smm", "level")
        made.rsm()
        assert {"smm": False, "level": 2 if nested else 1} == seen(made, "smm", "level")

    def test_a_second_smi_from_l1_does_not_return_to_l2(self):
        made = machine()
        made.nested_enter()
        made.smi()
        made.rsm()
        made.nested_exit()
        made.smi()
        made.rsm()
        assert {"level": 1} == seen(made, "level")

    def test_an_smi_performs_no_list(self):
        made = machine()
        made.nested_enter(exit_msr_load=[(SC, 4)])
        made.wrmsr(msr=SC, value=1)
        made.smi()
        assert {"value": 1} == made.rdmsr(msr=SC)

    def test_a_host_without_nesting_has_smm_all_the_same(self):
        made = machine(resolve_host({"part": "sapphire-rapids", "nested": False}))
        made.wrmsr(msr=SC, value=1)
        made.smi()
        made.wrmsr(msr=SC, value=5)
        made.rsm()
        assert {"value": 5} == made.rdmsr(msr=SC)


class TestCorners:
    """What only an unusual history shows."""

    def test_l2_reads_past_a_filter_that_came_after_its_bitmap_was_merged(self):
        target = machine().vcpus[0]
        target.wrmsr(0x48, 1)
        target.vmlaunch(L1Controls(), ())
        target.vm.set_msr_filter(MsrFilter(ranges=(FilterRange(0x48, 1, read=True, write=False, allow=(False,)),)))
        target.msr_filter_changed()
        assert 1 == target.rdmsr(0x48)

    def test_smm_is_out_of_vmx_operation(self):
        target = machine().vcpus[0]
        target.vmx_operation = True
        target.smi()
        assert not target.get_nested_state().vmx_operation

    def test_an_exit_to_l1_that_aborts_has_run_the_guest(self):
        target = machine().vcpus[0]
        target.set_nested_state(NestedState(True, True, L1Controls(), False, False, False, False, False))
        assert isinstance(outcome(target.vmcall, (0x50000002,), ()), VmxAbort)
        assert target.has_run

    def test_an_entry_of_l1_that_aborts_has_run_the_guest(self):
        target = machine().vcpus[0]
        refused = ((0x50000002, 0),)
        assert isinstance(outcome(target.vmlaunch, L1Controls(exit_msr_load=refused), refused), VmxAbort)
        assert target.has_run

    def test_after_an_exit_to_l1_the_guest_runs_on(self):
        target = machine().vcpus[0]
        target.vmlaunch(L1Controls(), ())
        assert [] == target.vmcall((), ())
        assert target.in_guest
