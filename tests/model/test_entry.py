"""What is forced, VM entry and exit, and which accesses are intercepted."""

import errno

import pytest

from helpers import BIT_63, FORCE, GP, ICE_LAKE, MC, SC, SPR, SPR_WITHOUT_CONTROL, WITHOUT_MSR, machine, outcome, seen
from specctrl.model.kvm.state import Loaded, VcpuState
from specctrl.model.kvm.variant import Assumptions
from specctrl.model.kvm.vcpu import Vcpu
from specctrl.model.kvm.vm import Vm
from specctrl.model.outcomes import HostFault
from specctrl.model.parts import Host, features_from_names, guest_features, resolve_host
from specctrl.model.posted import RFC_V3


def vcpu(host: Host = SPR, **options: object) -> Vcpu:
    return machine(host, **options).vcpus[0]


class TestUpdateForce:
    """Mask, value and saved value from userspace's pair and the report."""

    def test_everything_follows_at_once(self):
        target = vcpu(mask=0x4)
        target.guest_view = 0x5
        target.mitigation_ctrl = 3
        target.update_force()
        assert (0x444, 0x440, 0x441) == (target.force_mask, target.force_value, target.saved)
        assert 0x444 == target.vmcs01.spec_ctrl_mask

    def test_the_loaded_vmcs_is_the_one_that_is_written(self):
        target = vcpu()
        target.loaded = Loaded.VMCS02
        target.mitigation_ctrl = 1
        target.update_force()
        assert (0x400, 0) == (target.vmcs02.spec_ctrl_mask, target.vmcs01.spec_ctrl_mask)

    def test_a_view_that_the_host_refuses_never_becomes_the_saved_value(self):
        target = vcpu(mask=BIT_63)
        target.guest_view = BIT_63 | 1
        target.update_force()
        assert 1 == target.saved

    def test_without_the_control_no_field_is_written(self):
        target = vcpu(SPR_WITHOUT_CONTROL)
        target.mitigation_ctrl = 1
        target.update_force()
        assert (0x400, 0, True) == (target.force_mask, target.vmcs01.spec_ctrl_mask, target.vmcs01.intercept_write)


class TestForceSpecCtrl:
    """The pair of one vCPU."""

    def test_the_new_merge_is_tried_on_the_host(self):
        target = vcpu(mask=0xFFFFFFFF)
        target.guest_view = 0x80000001
        assert errno.EINVAL == outcome(target.force_spec_ctrl, 0x400, 0x400).number
        assert (0xFFFFFFFF, 0xFFFFFFFF) == (target.user_mask, target.force_mask)
        target.force_spec_ctrl(0x80000400, 0x400)
        assert (0x80000400, 0x400, 0x401) == (target.user_mask, target.user_value, target.saved)

    def test_a_report_may_make_the_new_merge_harmless(self):
        """The report's bits are in the merge that is tried; this host refuses nothing that it can force."""
        target = vcpu(mask=0x440)
        target.guest_view = 0x440
        target.mitigation_ctrl = 3
        target.force_spec_ctrl(0, 0)
        assert (0x440, 0x440, 0x440) == (target.force_mask, target.force_value, target.saved)

    def test_the_pair_must_be_one_that_can_be_forced(self):
        assert errno.EINVAL == outcome(vcpu().force_spec_ctrl, 4, 0x400).number
        assert errno.EINVAL == outcome(vcpu(ICE_LAKE).force_spec_ctrl, 0, 0).number


class TestLoadVmcs:
    """One place for every way to a VMCS."""

    @pytest.mark.parametrize("which", list(Loaded))
    def test_mask_and_view_are_what_holds_now(self, which):
        target = vcpu(mask=0x404, value=0x400)
        target.guest_view = 0x5
        target.load_vmcs(which)
        assert which is target.loaded
        assert (0x404, 0x5) == (target.vmcs.spec_ctrl_mask, target.vmcs.spec_ctrl_shadow)

    def test_without_the_control_there_is_nothing_to_write(self):
        target = vcpu(ICE_LAKE)
        target.guest_view = 5
        target.load_vmcs(Loaded.VMCS02)
        assert (0, 0) == (target.vmcs02.spec_ctrl_mask, target.vmcs02.spec_ctrl_shadow)


class TestMayPassThrough:
    """Who may access the MSR directly at all."""

    @pytest.mark.parametrize(
        ("host", "mask", "visible", "expected"),
        [
            (SPR, 0, True, True),
            (SPR, 0x400, True, True),
            (SPR, 0, False, False),
            (SPR_WITHOUT_CONTROL, 0, True, True),
            (SPR_WITHOUT_CONTROL, 0x400, True, False),
            (SPR_WITHOUT_CONTROL, 0, False, False),
        ],
    )
    def test_it_must_be_visible_and_forced_bits_must_hold(self, host, mask, visible, expected):
        target = vcpu(host)
        target.force_mask = mask
        target.cpuid = features_from_names(["SPEC_CTRL"] if visible else [])
        assert expected is target.may_pass_through()


class TestUpdatePassthrough:
    """After a change of the mask, on a host without the control."""

    @pytest.mark.parametrize(
        ("host", "mask", "view", "before", "expected"),
        [
            (SPR_WITHOUT_CONTROL, 0x400, 1, True, False),
            (SPR_WITHOUT_CONTROL, 0, 1, False, True),
            (SPR_WITHOUT_CONTROL, 0, 0, False, False),
            (SPR_WITHOUT_CONTROL, 0, 0, True, True),
            (SPR, 0x400, 1, False, False),
            (SPR, 0x400, 0, True, True),
        ],
    )
    def test_the_mask_and_the_view_decide(self, host, mask, view, before, expected):
        target = vcpu(host)
        target.force_mask, target.guest_view, target.passthrough = mask, view, before
        target.update_passthrough()
        assert (expected, not expected) == (target.passthrough, target.vmcs01.intercept_write)


class TestUpdateInterception:
    """vmcs01's bitmap, and vmcs02's where KVM itself needs the exit."""

    @pytest.mark.parametrize(
        ("ranges", "expected"),
        [
            ([], (False, False)),
            ([{"read": True}], (True, False)),
            ([{"write": True}], (False, True)),
            ([{"read": True, "write": True}], (True, True)),
        ],
    )
    def test_each_direction_that_the_filter_allows_passes(self, ranges, expected):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.set_msr_filter(ranges=[{"base": 0x48, "count": 1, "allow": [False], **one} for one in ranges])
        vmcs = made.vcpus[0].vmcs01
        assert expected == (vmcs.intercept_read, vmcs.intercept_write)

    def test_vmcs02_keeps_its_merge_while_the_msr_passes_through(self):
        target = vcpu()
        target.passthrough = True
        target.update_interception()
        assert (True, True) == (target.vmcs02.intercept_read, target.vmcs02.intercept_write)
        target.vmcs02.intercept_read = target.vmcs02.intercept_write = False
        target.update_interception()
        assert (False, False) == (target.vmcs02.intercept_read, target.vmcs02.intercept_write)
        target.passthrough = False
        target.update_interception()
        assert (True, True) == (target.vmcs02.intercept_read, target.vmcs02.intercept_write)

    def test_a_filter_change_takes_the_view_over_before_it_changes_the_bitmap(self):
        made = machine()
        made.wrmsr(msr=SC, value=1)
        made.wrmsr(msr=SC, value=5)
        made.set_msr_filter(ranges=[{"base": 0x48, "count": 1, "write": True, "allow": [False]}])
        assert (5, 5, False) == (made.vcpus[0].guest_view, made.vcpus[0].saved, made.vcpus[0].in_guest)


class TestEnterGuest:
    """VM entry."""

    def test_the_saved_value_is_loaded(self):
        target = vcpu(mask=0x400, value=0x400)
        target.enter_guest()
        assert (0x400, True, True) == (target.cpu.spec_ctrl, target.in_guest, target.has_run)

    def test_entering_twice_is_entering_once(self):
        target = vcpu()
        target.enter_guest()
        target.saved = 0x5
        target.enter_guest()
        assert 0 == target.cpu.spec_ctrl

    def test_a_register_that_drifted_from_the_host_s_variable_is_noticed(self):
        target = vcpu()
        target.saved = target.host.spec_ctrl
        target.cpu.spec_ctrl = 0x1
        assert not target.register_is_saved()
        target.enter_guest()
        assert target.host.spec_ctrl == target.cpu.spec_ctrl

    def test_as_posted_the_comparison_is_with_the_host_s_variable(self):
        """Defect D1 lives on that."""
        target = RFC_V3.make_vcpu(Vm(SPR), guest_features(SPR.features), Assumptions())
        target.saved = target.host.spec_ctrl
        target.cpu.spec_ctrl = 0x1
        target.enter_guest()
        assert 0x1 == target.cpu.spec_ctrl

    def test_a_value_that_the_processor_refuses_is_a_fault_in_the_host(self):
        target = vcpu()
        target.saved = 0x80000000
        assert isinstance(outcome(target.enter_guest), HostFault)
        assert (False, False) == (target.in_guest, target.has_run)

    def test_without_the_msr_nothing_is_written(self):
        target = vcpu(WITHOUT_MSR)
        target.enter_guest()
        assert (0, True) == (target.cpu.spec_ctrl, target.in_guest)

    def test_the_nested_run_is_no_longer_pending(self):
        target = vcpu()
        target.nested_run_pending = True
        target.enter_guest()
        assert False is target.nested_run_pending


class TestExitGuest:
    """VM exit."""

    def test_it_saves_what_the_processor_holds_and_gives_the_host_its_value(self):
        made = machine(mask=0x400, value=0x400)
        made.wrmsr(msr=SC, value=1)
        made.wrmsr(msr=SC, value=5)
        target = made.vcpus[0]
        target.exit_guest()
        assert (0x405, 0x5, 0x401) == (target.saved, target.guest_view, target.cpu.spec_ctrl)

    def test_the_register_decides_what_the_host_gets_and_not_what_the_guest_does(self):
        made = machine(mask=0x400, value=0x400)
        made.wrmsr(msr=SC, value=1)
        target = made.vcpus[0]
        target.cpu.spec_ctrl = 0x1  # what an NMI left
        target.exit_guest()
        assert (0x401, 0x1, 0x401) == (target.saved, target.guest_view, target.cpu.spec_ctrl)

    def test_without_the_control_the_register_is_the_only_copy_of_the_view(self):
        made = machine(SPR_WITHOUT_CONTROL)
        made.wrmsr(msr=SC, value=1)
        target = made.vcpus[0]
        target.cpu.spec_ctrl = 0x4
        target.exit_guest()
        assert (0x4, 0x4, 0x401) == (target.saved, target.guest_view, target.cpu.spec_ctrl)

    def test_while_writes_are_intercepted_saved_and_view_stand(self):
        target = vcpu(mask=0x400, value=0x400)
        target.enter_guest()
        target.vmcs01.spec_ctrl_shadow = 0x7
        target.exit_guest()
        assert (0x400, 0) == (target.saved, target.guest_view)

    def test_exiting_twice_is_exiting_once(self):
        target = vcpu()
        target.cpu.spec_ctrl = 0x5
        target.exit_guest()
        assert 0x5 == target.cpu.spec_ctrl

    @pytest.mark.parametrize(("host", "expected"), [("skylake-server", 0x1), ("cascade-lake", 0x5)])
    def test_only_a_legacy_ibrs_host_writes_when_the_values_are_the_same(self, host, expected):
        target = vcpu(resolve_host(host))
        target.saved = 0x1
        target.cpu.spec_ctrl = 0x5
        target.restore_host_spec_ctrl(0x1)
        assert expected == target.cpu.spec_ctrl

    def test_without_the_msr_nothing_is_read_or_written(self):
        target = vcpu(WITHOUT_MSR)
        target.enter_guest()
        target.exit_guest()
        assert (0, False) == (target.cpu.spec_ctrl, target.in_guest)


class TestVcpuState:
    """The record itself."""

    def test_the_level_is_that_of_the_loaded_vmcs(self):
        target = vcpu()
        assert (1, target.vmcs01) == (target.level, target.vmcs)
        target.loaded = Loaded.VMCS02
        assert 2 == target.level
        assert target.vmcs02 is target.vmcs
        assert isinstance(target, VcpuState)


class TestSharedBit:
    """Guest and host with the same value: where the posted code loses the host's bit (D1, D7)."""

    @pytest.mark.parametrize("report_by", ["guest", "userspace"])
    @pytest.mark.parametrize("level", [1, 2])
    def test_the_host_keeps_bhi_dis_s(self, report_by, level):
        made = machine(offer=True)
        made.wrmsr(msr=SC, value=1)
        if level == 2 and report_by == "guest":
            made.nested_enter(msr_load=[(MC, 1)])
        elif level == 2:
            made.nested_enter()
        if report_by == "userspace":
            made.set_msrs(msrs=[(MC, 1)])
        elif level == 1:
            made.wrmsr(msr=MC, value=1)
        made.wrmsr(msr=SC, value=1)
        assert {"host_spec_ctrl": 0x401} == made.exit()
        assert {"effective": 0x401, "level": level} == seen(made, "effective", "level")

    def test_the_vcpu_form_of_the_capability_cannot_break_the_host(self):
        made = machine(mask=0x80000000)
        made.wrmsr(msr=SC, value=1)
        made.wrmsr(msr=SC, value=0x80000000)
        assert {"errno": "EINVAL"} == made.enable_cap(fd="vcpu", cap=FORCE, args=[0, 0])
        assert {"host_spec_ctrl": 0x401} == made.exit()
        assert GP == made.wrmsr(msr=SC, value=0x40000000)

    def test_a_legacy_host_without_the_msr_writes_none(self):
        made = machine(resolve_host({"part": "skylake-server", "features": []}))
        made.rdmsr(msr=SC)
        assert {"host_spec_ctrl": 0} == made.exit()
