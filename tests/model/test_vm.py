"""The VM fd: the capability, the exit reasons, the creation of vCPUs."""

import errno

import pytest

from helpers import ICE_LAKE, SPR, outcome
from specctrl.model.kvm.filters import ALLOW_ALL, FilterRange, MsrFilter
from specctrl.model.kvm.vm import Vm


class TestForceSpecCtrl:
    """KVM_CAP_FORCE_SPEC_CTRL on the VM fd."""

    def test_the_last_pair_holds(self):
        vm = Vm(SPR)
        vm.force_spec_ctrl(0x400, 0x400)
        vm.force_spec_ctrl(0x5, 0x4)
        assert (0x5, 0x4) == (vm.user_mask, vm.user_value)
        vm.force_spec_ctrl(0, 0)
        assert (0, 0) == (vm.user_mask, vm.user_value)

    @pytest.mark.parametrize(("mask", "value"), [(0x4, 0x400), (0x80, 0x80)])
    def test_a_refused_pair_changes_nothing(self, mask, value):
        vm = Vm(SPR, user_mask=0x400, user_value=0x400)
        assert errno.EINVAL == outcome(vm.force_spec_ctrl, mask, value).number
        assert (0x400, 0x400) == (vm.user_mask, vm.user_value)

    def test_it_is_too_late_once_a_vcpu_exists(self):
        vm = Vm(SPR, created_vcpus=1)
        assert errno.EINVAL == outcome(vm.force_spec_ctrl, 0x400, 0x400).number
        assert errno.EINVAL == outcome(vm.force_spec_ctrl, 0, 0).number

    def test_force_to_0_needs_a_supported_bit_too(self):
        assert errno.EINVAL == outcome(Vm(ICE_LAKE).force_spec_ctrl, 4, 0).number


class TestEnableCap:
    """KVM_ENABLE_CAP on the VM fd."""

    def test_it_finds_the_capability_by_number(self):
        vm = Vm(SPR)
        vm.enable_cap(236, 0, 0x400, 0x400)
        vm.enable_cap(188, 0, 7, 0)
        assert (0x400, 0x400, 7) == (vm.user_mask, vm.user_value, vm.exit_reasons)

    @pytest.mark.parametrize(
        ("capability", "flags", "first"), [(236, 1, 0x400), (188, 1, 7), (188, 0, 8), (189, 0, 0), (9999, 0, 0)])
    def test_flags_unknown_capabilities_and_reasons_are_einval(self, capability, flags, first):
        vm = Vm(SPR)
        assert errno.EINVAL == outcome(vm.enable_cap, capability, flags, first, 0).number
        assert Vm(SPR) == vm

    @pytest.mark.parametrize("reasons", [0, 1, 2, 4, 7])
    def test_exit_reasons_may_be_set_any_time(self, reasons):
        vm = Vm(SPR, created_vcpus=3, exit_reasons=7)
        vm.enable_cap(188, 0, reasons, 0)
        assert reasons == vm.exit_reasons


class TestSetMsrFilter:
    """KVM_X86_SET_MSR_FILTER."""

    def test_a_refused_filter_leaves_the_old_one(self):
        vm = Vm(SPR)
        good = MsrFilter(ranges=(FilterRange(0x48, 1, True, True, (False,)),))
        vm.set_msr_filter(good)
        assert errno.EINVAL == outcome(vm.set_msr_filter, MsrFilter(False)).number
        assert good == vm.msr_filter
        vm.set_msr_filter(ALLOW_ALL)
        assert ALLOW_ALL == vm.msr_filter


class TestCountVcpu:
    """The part of KVM_CREATE_VCPU that can fail."""

    def test_a_new_number_counts(self):
        vm = Vm(SPR)
        vm.count_vcpu(0, exists=False)
        vm.count_vcpu(4095, exists=False)
        assert 2 == vm.created_vcpus

    @pytest.mark.parametrize(
        ("number", "exists", "expected"),
        [(4096, False, errno.EINVAL), (4096, True, errno.EINVAL), (0, True, errno.EEXIST)],
    )
    def test_a_failed_creation_does_not(self, number, exists, expected):
        vm = Vm(SPR)
        assert expected == outcome(vm.count_vcpu, number, exists).number
        assert 0 == vm.created_vcpus
